"""A search on any image classification data set of tensorflow_datasets, prepared as array_record.

    python -m experiments.search --config=experiments/configs/search_tfds.py:svhn_cropped --workdir=runs/svhn

The name of the data set follows the colon. The settings are those of the paper's B search. Images of
several sizes need `--config.data.image_size=32`. `:quick` runs on synthetic images in about a minute on two
CPU cores.
"""

from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from experiments.configs.search_defaults import get_defaults, set_quick


def get_config(name: str = "") -> ConfigDict:
    """The config for the data set called `name`, or the quick form for the name "quick"."""
    if not name:
        raise UserError("the name of the data set must follow a colon, as in search_tfds.py:svhn_cropped")
    config = get_defaults()
    if name == "quick":
        config.name = "search on synthetic images"
        set_quick(config)
        return config
    config.name = f"search on {name}"
    config.data.source = f"tfds:{name}"
    config.data.flip = False  # some data sets change their meaning when mirrored
    return config
