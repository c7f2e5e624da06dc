"""Layers on ResNet-50 and MobileNetV2 while the images of a device go from 128 to 4, on ImageNet.

    python -m experiments.tables --config=experiments/configs/batch_size_imagenet.py \\
        --workdir=gs://my-bucket/batch_size --commands

The batches are those of eight devices, 8 x 128 to 8 x 4 images, on any number of devices, with the learning
rate in proportion and the epochs of the recipes. `:quick` trains two layers on small synthetic images. Not
run by us in full.
"""

from ml_collections import ConfigDict

from experiments.configs import transfer_imagenet


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = transfer_imagenet.get_config(form)
    config.name = f"images of a device, {'synthetic images' if form == 'quick' else 'ImageNet'}"
    config.layers = ("bn_relu", "gn_relu", "frn_tlu", "evonorm_s0", "evonorm_s1", "evonorm_s2")
    config.batches = (128, 32, 16, 8, 4)
    config.workers = 8
    config.networks = config.networks[:2]
    if form == "quick":
        config.layers = ("bn_relu", "evonorm_s0")
        config.batches = (4, 2)
    return config
