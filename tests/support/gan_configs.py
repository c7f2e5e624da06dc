"""The smallest BigGAN that shows its properties, as a config with data, and its layout."""

import contextlib

from evonorms_jax.gan.layouts import LAYOUTS, Layout
from experiments.configs.gan_digits import get_config

SIDE = 8


@contextlib.contextmanager
def tiny_layouts():
    """Within it, "biggan" and "biggan_deep" have networks of one block for images of side 8."""
    tiny = {
        "biggan": Layout(4, "1 1u", "1d", 4, 4),
        "biggan_deep": Layout(4, "1 1u", "1 1d", 4, 4),
    }
    for name, layout in tiny.items():
        LAYOUTS[name][SIDE] = layout
    try:
        yield
    finally:
        for name in tiny:
            del LAYOUTS[name][SIDE]


def tiny_config(**overrides):
    """A training of the tiny networks on synthetic images of four classes, without scores."""
    config = get_config("quick")
    settings = {
        "steps": 4,
        "batch_size": 16,
        "eval_batch_size": 16,
        "log_every": 1,
        "eval_every": 4,
        "checkpoint_every": 2,
        "average_start": 1,
        "networks.name": "biggan",
        "networks.width": None,
        "networks.embedding": 4,
        "networks.embedding_scale": 1.0,
        "data.source": "synthetic",
        "data.image_size": SIDE,
        "data.crop": SIDE,
        "data.train_size": 64,
        "data.validation_size": 16,
        "sampling.batch_size": 8,
        "sampling.statistics_batches": 2,
        "scores.network": "none",
    }
    config.update_from_flattened_dict(settings | overrides)
    return config
