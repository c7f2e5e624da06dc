"""Configs of searches for tests that call the package directly."""

from ml_collections import ConfigDict

from experiments.configs import search_mnist5k


def digits(*anchors: str) -> ConfigDict:
    """The default search as it is, on these anchors."""
    config = search_mnist5k.get_config()
    config.anchors = anchors
    return config


def quick() -> ConfigDict:
    """The quick form: synthetic images, one tiny anchor."""
    return search_mnist5k.get_config("quick")
