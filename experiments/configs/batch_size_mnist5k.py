"""Layers when few images share batch statistics, on the 5,000 embedded digits.

    python -m experiments.tables --config=experiments/configs/batch_size_mnist5k.py --workdir=runs/batch_size

A batch of 128 images is cut into groups of 128 to 1 with statistics of their own, as on 1 to 128 devices.
Steps, images and learning rate are the same for all. About 45 minutes on one x86-64 core. `:quick` trains two
layers on synthetic images.
"""

from ml_collections import ConfigDict

from experiments.configs import transfer_mnist5k


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = transfer_mnist5k.get_config(form)
    quick = form == "quick"
    config.name = f"batch statistics of few images, {'synthetic images' if quick else '5,000 digits'}"
    config.layers = ("bn_relu", "gn_relu", "frn_tlu", "evonorm_s0", "evonorm_s1", "evonorm_s2")
    config.comparison = ""
    config.batches = (8, 4) if quick else (128, 16, 8, 4, 2, 1)
    config.workers = None  # or a number: batch_size is that many times the group
    config.networks = config.networks[:2]
    config.overrides += ("batch_size=16" if quick else "batch_size=128",)
    if quick:
        config.layers = ("bn_relu", "evonorm_s0")
    return config
