"""The keys that all searches share, with the numbers of the paper.

Source: arXiv 2004.02967. A comment marks each number that the paper's main text gives. We believe the others
to be in its appendix, or chose them where we know no source.
"""

from ml_collections import ConfigDict, config_dict

from evonorms_jax.errors import UserError
from evonorms_jax.search_space import OP_NAMES


def get_defaults() -> ConfigDict:
    """The full search for layers with batch statistics on CIFAR-10."""
    config = ConfigDict()
    config.name = "search"
    config.seed = 0  # base seed of proposals, weights, batches and crops
    config.method = "evolution"  # or random_search, or random: ends with the first accepted layer
    config.budget = 5000  # candidates examined, rejected ones included
    # Steps of training and stability test after which a search ends, over all anchors. None: no such limit.
    config.device_steps = config_dict.placeholder(int)
    config.executor = "auto"  # universal, compiled (a program for each survivor of the tests), or auto
    config.checkpoint_every = 50  # candidates between checkpoints; history.jsonl is written every round
    config.top_k = 10  # number of layers to re-rank: the paper's
    # Known layers that are trained in the way of the candidates, for people to compare with.
    config.baselines = ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
    config.rerank_replicas = 0  # fresh seeds to re-rank them with on the anchors when the search ends

    config.search_space = ConfigDict()
    config.search_space.num_nodes = 10  # intermediate nodes: the paper's 14 nodes without the 4 leaves
    # All 24 of the paper, or a tuple of names. Ours: erf, and mean_c, rms_c, std_c over channels alone.
    config.search_space.ops = OP_NAMES

    config.data = ConfigDict()
    config.data.source = "cifar10"  # mnist5k, cifar10, synthetic or tfds:NAME
    config.data.train_size = config_dict.placeholder(int)  # None: all images outside the other parts
    config.data.validation_size = config_dict.placeholder(int)
    config.data.image_size = config_dict.placeholder(int)
    config.data.data_dir = config_dict.placeholder(str)
    config.data.seed = 0  # seed of the split
    config.data.crop = 24
    config.data.flip = True

    # The paper's three anchors. The search uses them in order of cost.
    config.anchors = ("resnet50_cifar", "mobilenet_v2_cifar", "efficientnet_b0_cifar")

    config.layer = ConfigDict()
    config.layer.groups = 32
    config.layer.group_size = config_dict.placeholder(int)  # channels a group, instead of groups
    config.layer.epsilon = 1e-5
    config.layer.momentum = 0.9

    config.proxy = ConfigDict()
    config.proxy.optimizer = "sgd"  # the paper's; adamw and muon are beyond it, see training/optimizer.py
    config.proxy.steps = 2000
    config.proxy.batch_size = 128
    config.proxy.learning_rate = 0.1
    config.proxy.schedule = "constant"  # or cosine
    config.proxy.warmup_steps = 0
    config.proxy.init_scale = 1.0  # factor of the start weights; below 1 is ours and asks for a norm
    config.proxy.momentum = 0.9
    config.proxy.weight_decay = 1e-4
    config.proxy.replicas = 1  # number of seeds that the score of an accepted layer is a mean of
    config.proxy.eval_batch_size = 250

    config.rejection = ConfigDict()
    config.rejection.enabled = True
    config.rejection.quality_steps = 100  # the paper's
    config.rejection.quality_threshold = 2.0  # as a multiple of chance: the paper's 20 % for ten classes
    config.rejection.hurdle_steps = 0  # 25, say, is ours: an early quality test on the cheapest anchor
    config.rejection.hurdle_threshold = 1.0  # as a multiple of chance
    config.rejection.stability_steps = 100  # the paper's
    config.rejection.stability_norm = 1e8  # the paper's
    config.rejection.stability_step_size = 0.01  # relative to the norm of the weights
    config.rejection.stability_batch_size = 16
    config.rejection.stability_anchor = ""  # name of an anchor, or "" for the cheapest
    config.rejection.allow_batch_dependent = True
    config.rejection.allow_flat = True  # False is ours: reject an output that does not vary over space
    config.rejection.duplicates = True  # reuse the evaluation of a function examined before

    config.evolution = ConfigDict()
    config.evolution.population_size = 2500
    config.evolution.initial_population = 100
    config.evolution.survival = "aging"  # the paper's: the most recent ones survive; or nsga2
    config.evolution.selection = "pareto"  # the paper's; or average, nsga2, pareto_cost
    config.evolution.tournament_fraction = 0.05  # the paper's
    config.evolution.mutation = "node"  # the paper's; "gene" draws an op or one input, and is ours
    config.evolution.mutations = 2
    config.evolution.redraw = False  # True is ours: mutate until the layer changes
    config.evolution.random_probability = 0.5
    config.evolution.round_size = 32  # number of proposals from one state of the history
    config.evolution.seed_layers = ()  # names such as evonorm_b0, or file.json#0
    return config


def set_quick(config: ConfigDict) -> None:
    """Changes a config to its `:quick` form: synthetic images, one tiny anchor, sixty candidates."""
    config.budget = 60
    config.device_steps = None
    config.checkpoint_every = 50
    config.data.source = "synthetic"
    config.data.image_size = 12
    config.data.crop = 10
    config.data.flip = False
    config.anchors = ("resnet_tiny",)
    config.layer.group_size = 4
    config.proxy.steps = 60
    # One schedule and rate, so that all quick forms share their programs.
    config.proxy.schedule = "cosine"
    config.proxy.learning_rate = 0.1
    config.proxy.warmup_steps = 0
    config.proxy.init_scale = 1.0
    config.proxy.batch_size = 16
    config.proxy.eval_batch_size = 64
    config.rejection.quality_steps = 30
    config.rejection.quality_threshold = 1.2
    config.rejection.hurdle_steps = 0
    config.rejection.stability_steps = 10
    config.rejection.stability_step_size = 0.01
    config.executor = "universal"
    config.evolution.initial_population = 1  # so few candidates have one survivor soon, and seldom two
    config.evolution.tournament_fraction = 0.5
    config.evolution.round_size = 8
    config.evolution.seed_layers = ()


def check_form(form: str) -> bool:
    """Whether the form is "quick"; raises ValueError for a form other than "quick" and "full"."""
    if form not in ("full", "quick"):
        raise UserError(f"there is no form {form!r}, only 'quick'")
    return form == "quick"
