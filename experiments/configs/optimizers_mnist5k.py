"""Layers x optimizers on the 5,000 embedded digits: does a layer keep its place under another optimizer?

    python -m experiments.tables --config=experiments/configs/optimizers_mnist5k.py --workdir=runs/optimizers

Beyond the paper, which has SGD and RMSProp. Small networks of three kinds, each with SGD, AdamW and Muon, by
the recipe of `experiments/configs/train.py` with 14x14 crops and 300 steps. Every optimizer has one rate for
all layers and networks, which was not tuned for any of them. A network is a column for each optimizer.
`:quick` trains two layers with two optimizers on synthetic images.
"""

from ml_collections import ConfigDict

from experiments.configs import rerank_mnist5k
from experiments.configs.search_defaults import check_form
from experiments.configs.table_defaults import get_table

NETWORKS = ("resnet_small", "mobilenet_small", "vit_digits")
#: Overrides of the recipe by optimizer. Muon's rate is AdamW's, to which its steps are scaled.
OPTIMIZERS = {
    "sgd": "optimizer.name=sgd",
    "adamw": "optimizer.name=adamw optimizer.learning_rate=0.003 optimizer.weight_decay=0.05",
    "muon": "optimizer.name=muon optimizer.learning_rate=0.003 optimizer.weight_decay=0.05 "
    "optimizer.momentum=0.95",
}


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = get_table("classification", metrics=("test.accuracy",))
    config.name = f"layers and optimizers, {'synthetic images' if quick else '5,000 digits'}"
    config.layers = ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
    recipe = "experiments/configs/train.py" + (":quick" if quick else "")
    names = ("resnet_tiny",) if quick else NETWORKS
    optimizers = ("sgd", "muon") if quick else OPTIMIZERS
    config.networks = tuple(
        f"{name}/{optimizer} {recipe} model.name={name} {OPTIMIZERS[optimizer]}"
        for name in names
        for optimizer in optimizers
    )
    config.overrides = ("steps=300", "optimizer.warmup_steps=30", *rerank_mnist5k.DIGITS)
    if quick:
        config.overrides = ("steps=20", *rerank_mnist5k.QUICK)
        config.layers = ("bn_relu", "evonorm_s0")
        config.seeds = (0,)
    return config
