"""Layers away from the task that found them: larger images, longer training, two more networks.

    python -m experiments.tables --config=experiments/configs/transfer_mnist5k.py --workdir=runs/transfer

The layers of the four methods come from the comparison in `docs/`, or from your own searches with
`--config.comparison=runs/compare`. The recipe of `experiments/configs/train.py` trains on the 5,000 embedded
digits, with 14x14 crops and 300 steps where the searches had 10x10 and 150. The searches used the first three
networks and not the other two. `:quick` trains two layers on synthetic images, without searches.
"""

from ml_collections import ConfigDict

from experiments.configs import rerank_mnist5k
from experiments.configs.search_defaults import check_form
from experiments.configs.table_defaults import get_table

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small", "mnasnet_small", "resnet_tiny")


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = get_table("classification", metrics=("test.accuracy",))
    config.name = "transfer, 5,000 digits, the last two networks unknown to the searches"
    if quick:
        config.name = "transfer, synthetic images"
    config.layers = ("bn_relu", "bn_silu", "evonorm_b0", "evonorm_b1", "evonorm_b2", "evonorm_s0")
    config.comparison = "docs/compare_methods.json"  # or its work directory; "" leaves its rows out
    recipe = "experiments/configs/train.py" + (":quick" if quick else "")
    names = NETWORKS[:2] if quick else NETWORKS
    config.networks = tuple(f"{name} {recipe} model.name={name}" for name in names)
    # For the recipes of all networks. The layers were found with these groups of channels.
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
