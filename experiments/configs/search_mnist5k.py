"""The default: a search from random graphs alone on 5,000 embedded handwritten digits, for a laptop.

    launch/search_local.sh
    python -m experiments.search --config=experiments/configs/search_mnist5k.py --workdir=runs/mnist5k

Digits of 10x10 pixels and three small anchors of the paper's families. The method is the paper's. Its
settings are ours where a comment says so: the paper's search had some hundred times as many candidates, and
anchors of fifty layers that do not train without a norm. Here small start weights take the place of the
depth: a signal shrinks from site to site, unless the layers normalize it.
`experiments/benchmarks/calibration.py` measures how well these anchors tell normalizers from pointwise
functions, and `experiments/benchmarks/search_seeds.py` compares the best layers of searches with several
seeds. `:quick` ends in about a minute.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form, get_defaults, set_quick


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = get_defaults()
    config.name = "search on 5,000 digits"
    # The steps are the budget. Random graphs cost few, and a search that meets its first normalizer late
    # examines more of them.
    config.device_steps = 200_000
    config.budget = 100_000
    config.checkpoint_every = 512
    config.executor = "universal"  # a build takes longer than the steps that it would save
    config.rerank_replicas = 4

    config.data.source = "mnist5k"
    # Whole images. With random crops of 12x12 images the validation images had another size than the crops,
    # and accuracies were lower.
    config.data.image_size = 10
    config.data.crop = 10
    config.data.flip = False  # a mirrored digit is not a digit

    # Ours. Pointwise functions stay near chance, since their signals vanish. Normalizers do not see the scale
    # of the weights, save that a step changes small weights more, so the rate is low.
    config.anchors = ("resnet_small", "mobilenet_narrow", "efficientnet_narrow")
    config.layer.group_size = 8
    config.proxy.init_scale = 0.35
    config.proxy.steps = 200
    config.proxy.batch_size = 48
    config.proxy.learning_rate = 0.05
    config.proxy.schedule = "cosine"  # the decay steadies the accuracy after so few steps
    config.proxy.warmup_steps = 40
    config.proxy.eval_batch_size = 100

    # Ours: flat layers took a third of all device time, and hardly any passed the quality test. The steps of
    # the stability test are longer, since with 0.01 networks without a norm pass.
    config.rejection.allow_flat = False
    config.rejection.stability_step_size = 0.05
    # Ours: after 60 steps most pointwise functions are at chance, and BN-ReLU with some seeds is at 12 %.
    # After 100 steps known layers have 33 % and more with four seeds, and pointwise functions less than 30 %
    # on one of the anchors.
    config.rejection.hurdle_steps = 60
    config.rejection.hurdle_threshold = 1.05
    config.rejection.quality_threshold = 3.0

    # Ours: random graphs give one normalizer in some thousands, so evolution starts from the first ones. Half
    # of them take part in a tournament. A mutation draws an op or an input and not a whole node, since two
    # changes at once hardly ever lead from `x / std_wh(x)` to `abs(x) / std_wh(x)`.
    config.evolution.population_size = 200
    config.evolution.initial_population = 3
    config.evolution.tournament_fraction = 0.5
    config.evolution.mutation = "gene"
    config.evolution.mutations = 1
    config.evolution.redraw = True
    config.evolution.random_probability = 0.5
    config.evolution.round_size = 256
    if check_form(form):
        set_quick(config)
        config.rerank_replicas = 2
    return config
