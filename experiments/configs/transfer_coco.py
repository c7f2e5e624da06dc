"""The paper's table of instance segmentation: layers on two Mask R-CNNs, on COCO.

    python -m experiments.tables --config=experiments/configs/transfer_coco.py \\
        --workdir=gs://my-bucket/coco --commands --config.overrides=data.data_dir=/data/coco

prints a command for each cell. The recipes name the hardware that they need. `--config.layers=LAYER`, once
for each layer, chooses others, such as `runs/mnist5k/top_layers.json#0` of a search. `:quick` trains two
layers for a few steps on digit scenes. We have not run it in full, and could not confirm the published AP.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form
from experiments.configs.table_defaults import get_table

NETWORKS = (
    "resnet50_fpn experiments/configs/coco_r50_fpn.py:full",
    "spinenet96 experiments/configs/coco_spinenet96.py:full",
)


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = get_table("detection", metrics=("validation.box_AP", "validation.mask_AP"))  # on val2017
    config.name = f"transfer, instance segmentation of {'digit scenes' if quick else 'COCO'}"
    config.layers = ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
    config.seeds = (0,)
    config.networks = NETWORKS
    if quick:
        config.layers = ("bn_relu", "evonorm_b0")
        config.networks = tuple(network.replace(":full", ":quick") for network in NETWORKS)
    return config
