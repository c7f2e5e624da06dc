"""The default: a search from random graphs alone on 5,000 embedded handwritten digits, for a laptop.

    launch/search_local.sh
    python -m experiments.search --config=experiments/configs/search_mnist5k.py --workdir=runs/mnist5k

Digits of 12x12 pixels and three small anchors of the paper's families. The method is the paper's. Its
settings are ours where a comment says so: the paper's search had some hundred times as many candidates, and
anchors of fifty layers that do not train without a norm. `experiments/benchmarks/calibration.py` measures how
well these anchors tell normalizers from pointwise functions, and `experiments/benchmarks/search_seeds.py`
compares the best layers of searches with several seeds. `:quick` ends in about a minute.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form, get_defaults, set_quick


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = get_defaults()
    config.name = "search on 5,000 digits"
    config.budget = 16_000
    config.checkpoint_every = 512
    config.executor = "universal"  # a build takes longer than the steps that it would save
    config.rerank_replicas = 4

    config.data.source = "mnist5k"
    config.data.image_size = 12
    config.data.crop = 10
    config.data.flip = False  # a mirrored digit is not a digit

    # Ours: deep and narrow, at a rate at which they do not train without a norm.
    config.anchors = ("resnet_narrow", "mobilenet_narrow", "efficientnet_narrow")
    config.layer.group_size = 8
    config.proxy.steps = 220
    config.proxy.batch_size = 32
    config.proxy.learning_rate = 0.15
    config.proxy.schedule = "cosine"  # the decay steadies the accuracy after so few steps
    config.proxy.warmup_steps = 30
    config.proxy.eval_batch_size = 100

    # Ours: flat layers took a third of all device time, and hardly any passed the quality test. The steps of
    # the stability test are longer, since with 0.01 networks without a norm pass.
    config.rejection.allow_flat = False
    # Ours: three quarters of the time went into candidates that are at chance after 100 steps. Most of them
    # are there after 50, where 5 to 9 % of the trainings of normalizers were in our trials. The benchmark
    # false_rejections, which measures that share, has not run yet.
    config.rejection.hurdle_steps = 50
    config.rejection.hurdle_threshold = 1.05
    config.rejection.stability_step_size = 0.05

    # Ours: with so few candidates, evolution starts early, from a population of pointwise functions and a few
    # normalizers. Half of them take part in a tournament, so that a normalizer is picked as soon as there is
    # one, and none grows too old before that.
    config.evolution.population_size = 200
    config.evolution.initial_population = 20
    config.evolution.tournament_fraction = 0.5
    config.evolution.redraw = True
    config.evolution.random_probability = 0.5
    config.evolution.round_size = 128
    if check_form(form):
        set_quick(config)
        config.rerank_replicas = 2
    return config
