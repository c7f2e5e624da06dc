"""The paper's table: layers on ResNet-50, MobileNetV2, MnasNet, EfficientNet-B0 and B5, on ImageNet.

    python -m experiments.tables --config=experiments/configs/transfer_imagenet.py \\
        --workdir=gs://my-bucket/transfer --commands

prints a command for each cell and seed. The recipes name the hardware that they need.
`--config.comparison=DIR` adds the rows of the four search methods, from searches on CIFAR-10 in DIR/searches.
`:quick` trains two layers on two networks with small synthetic images. Not run by us in full. Published top-1
(arXiv 2004.02967) in %, in the order of the columns:

    BN-ReLU                    76.3  76.2  77.6          77.7          73.4
    BN-SiLU                    76.6  77.3  78.2          78.2          74.5
    Random                     0.001 0.001 0.001         0.001         0.001
    Random + rejection         71.7  70.8  63.6 ± 18.9   55.3 ± 17.5   0.001
    Random search + rejection  75.8  76.3  77.4          77.5          73.5
    EvoNorm-B0                 76.6  77.7  77.9          78.4          75.0
    EvoNorm-B1                 76.1  77.5  77.7          78.0          74.6
    EvoNorm-B2                 76.6  77.7  78.0          78.4          74.6
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form
from experiments.configs.table_defaults import get_table

NETWORKS = (
    "resnet50 experiments/configs/imagenet_resnet50.py:full",
    "mobilenet_v2 experiments/configs/imagenet_mobilenet_v2.py:full",
    "mnasnet experiments/configs/imagenet_mnasnet.py:full",
    "efficientnet_b0 experiments/configs/imagenet_efficientnet.py:b0",
    "efficientnet_b5 experiments/configs/imagenet_efficientnet.py:b5",
)


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = get_table("classification", metrics=("test.accuracy",))
    config.name = f"transfer on {'synthetic images' if quick else 'ImageNet'}"
    config.layers = ("bn_relu", "bn_silu", "evonorm_b0", "evonorm_b1", "evonorm_b2")
    config.networks = NETWORKS
    if quick:
        config.layers = ("bn_relu", "evonorm_b0")
        config.seeds = (0,)
        config.networks = tuple(network.replace(":full", ":quick") for network in NETWORKS[:2])
    return config
