"""From a config to its networks."""

from typing import Any

from ml_collections import ConfigDict

from evonorms_jax.gan.networks import Networks, make_networks
from evonorms_jax.layers import norm_act
from evonorms_jax.training.classification import compute_dtype


def build_networks(config: ConfigDict, num_classes: int, channels: int) -> Networks:
    """The networks of a config, with the keys of `experiments/configs/gan_digits.py`.

    Raises `ValueError` if the dtype, the layer or the networks are unknown, or a width does not fit.
    """
    return make_networks(
        **config.networks,
        size=config.data.crop,
        norm_act=norm_act(**config.layer),
        num_classes=num_classes,
        channels=channels,
        dtype=compute_dtype(config),
    )


def networks_of(config: ConfigDict, params: Any) -> Networks:
    """The networks of a training by its config and its parameters, which tell classes and channels."""
    discriminator = params["discriminator"]
    first = discriminator.get("stem") or discriminator["block_1"]["conv_1"]
    classes = discriminator["classes"]["embedding"].shape[0]
    return build_networks(config, classes, first["kernel"].shape[2])
