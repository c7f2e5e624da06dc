"""The paper's table of instance segmentation: layers on two Mask R-CNNs, on COCO.

    python -m experiments.tables --config=experiments/configs/transfer_coco.py \\
        --workdir=gs://my-bucket/coco --commands --config.overrides=data.data_dir=/data/coco

prints a command for each cell. The recipes name the hardware that they need. `--config.layers=LAYER`, once
for each layer, chooses others, such as `runs/mnist5k/top_layers.json#0` of a search. `:quick` trains two
layers for a few steps on digit scenes. We have not run it in full, and could not confirm the published AP.
"""

from ml_collections import ConfigDict, config_dict

from experiments.configs.search_defaults import check_form

NETWORKS = (
    "resnet50_fpn experiments/configs/coco_r50_fpn.py:full",
    "spinenet96 experiments/configs/coco_spinenet96.py:full",
)


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.task = "detection"  # kind of training, see evonorms_jax/study/full_training.py
    config.metrics = ("validation.box_AP", "validation.mask_AP")  # of the task, on val2017
    config.name = f"transfer, instance segmentation of {'digit scenes' if quick else 'COCO'}"
    config.layers = ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
    config.comparison = ""  # or a comparison of methods, see transfer_mnist5k.py
    config.seeds = (0,)
    config.batches = config_dict.placeholder(tuple)
    config.workers = config_dict.placeholder(int)
    config.networks = NETWORKS
    config.overrides = ()  # of the recipes of all networks, KEY=VALUE each
    if quick:
        config.layers = ("bn_relu", "evonorm_b0")
        config.networks = tuple(network.replace(":full", ":quick") for network in NETWORKS)
    return config
