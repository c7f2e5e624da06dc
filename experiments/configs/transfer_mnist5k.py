"""How layers do where they were not found: larger images, longer training, two networks more.

    python -m experiments.tables --config=experiments/configs/transfer_mnist5k.py --workdir=runs/transfer

Takes the layers of the four methods from the comparison in `docs/`; `--config.comparison=runs/compare` takes
them from searches of one's own. The recipe of `experiments/configs/train.py` on the 5,000 embedded
digits: 14x14 crops where the searches saw 10x10, 300 steps where they took 150. The first three networks are
those of the searches, the other two took no part. `:quick` takes made-up images and no searches.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs import rerank_mnist5k
from experiments.configs.search_defaults import check_form

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small", "mnasnet_small", "resnet_tiny")


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.task = "classification"  # kind of training, see evonorms_jax/study/full_training.py
    config.metrics = ("test.accuracy",)  # of the task; "nan_share" can be one more
    config.name = "transfer, 5,000 digits, the last two networks unknown to the searches"
    config.layers = ("bn_relu", "bn_silu", "evonorm_b0", "evonorm_b1", "evonorm_b2", "evonorm_s0")
    config.comparison = "docs/compare_methods.json"  # or a folder with searches; "" leaves its rows out
    config.seeds = (0, 1, 2)
    config.batches = config_dict.placeholder(tuple)  # those of the table of batch sizes
    config.workers = config_dict.placeholder(int)
    recipe = "experiments/configs/train.py" + (":quick" if quick else "")
    names = NETWORKS[:2] if quick else NETWORKS
    config.networks = tuple(f"{name} {recipe} model.name={name}" for name in names)
    # Of the recipes of all networks; groups of channels are those that the layers were found with.
    config.overrides = (
        "steps=300",
        "optimizer.warmup_steps=30",
        "layer.group_size=32",
        *rerank_mnist5k.DIGITS,
    )
    if quick:
        config.overrides = ("steps=20", *rerank_mnist5k.QUICK)
        config.layers = ("bn_relu", "evonorm_b0")
        config.comparison = ""
        config.seeds = (0, 1)
    return config
