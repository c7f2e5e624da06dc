"""EfficientNet-B0 to B7 on ImageNet at their own resolutions, 350 epochs.

    python -m experiments.train --config=experiments/configs/imagenet_efficientnet.py:b0 --workdir=runs/b0 \\
        --config.layer.spec=evonorm_b0

The recipe of the released EfficientNet code (arXiv 1905.11946): RMSProp with decay and momentum 0.9, 0.016
for 256 images, x0.97 every 2.4 epochs, weight decay 1e-5, label smoothing 0.1, a moving average of the
parameters, drop-connect, AutoAugment. Choose the variant by `:b0` to `:b7` after the file. `:quick` runs 16
steps of B0 with 32 synthetic images, 32x32, as a test, and `:b5-quick` of B5.
Published top-1 (arXiv 2004.02967): B0 BN-ReLU 77.7 %, EvoNorm-B0 78.4 %; B5 73.4 % and 75.0 %.

Hardware: a slice of 32 TPU chips for B0, more for the larger variants, or `accumulate` above 1 where a batch
does not fit. We have not run it. B0 has 0.39 G multiply-adds an image and B5 9.9 G, which makes 1e18 and
2.7e19 FLOP in all: we estimate half an hour and 12 hours at 10 % of the peak of a v5e-32 (6.3e15 FLOP/s).
"""

from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.models.mobile_networks import SCALINGS
from experiments.configs.imagenet_defaults import cap_statistics_batch, get_recipe


def get_config(form: str = "b0") -> ConfigDict:
    """The recipe; `form` is a variant `b0` to `b7`, its quick form such as `b0-quick`, or "quick"."""
    variant, _, suffix = ("b0", "-", "quick") if form == "quick" else form.partition("-")
    if variant not in SCALINGS or suffix not in ("", "quick"):
        raise UserError(f"form must be b0 to b7, with -quick or without, got {form!r}")
    config = get_recipe(
        f"efficientnet_{variant}",
        suffix or "full",
        batch_size=2048,
        epochs=350,
        image_size=SCALINGS[variant].resolution,
    )
    cap_statistics_batch(config, 64)  # a device's share of a batch on 32 devices
    config.layer.spec = "bn_silu"
    config.label_smoothing = 0.1
    config.average_decay = 0.9999
    config.optimizer.name = "rmsprop"
    config.optimizer.learning_rate = 0.016
    config.optimizer.schedule = "exponential"
    config.optimizer.weight_decay = 1e-5
    if not suffix:
        config.data.augment = "autoaugment"
    return config
