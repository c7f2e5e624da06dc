"""The paper's second transfer: layers in the generator of BigGAN-deep on ImageNet at 128 x 128.

    python -m experiments.tables --config=experiments/configs/transfer_gan_imagenet.py \\
        --workdir=gs://my-bucket/transfer_gan --commands

prints a command for each cell and seed. The recipe `gan_imagenet128.py` names the hardware that it needs. The
scores need the weights of the Inception network, `EVONORMS_INCEPTION=PATH`. Not run by us in full. `:quick`
trains two layers for a few steps on small synthetic images, which a classifier scores.

The publication (arXiv 2004.02967) reports the medians below, from memory: no copy that we could read confirms
them, nor the number of seeds and the truncation.

    unconfirmed        Inception score   FID
    BN-ReLU            118.77            7.85
    EvoNorm-B0         101.13            6.91
    EvoNorm-S0         104.64            6.86
    GN-ReLU            99.09             8.14
    LN-ReLU            91.56             8.35
    PixelNorm-ReLU     88.58             10.41
"""

from ml_collections import ConfigDict

from experiments.configs import transfer_gan_digits


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = transfer_gan_digits.get_config(form)
    quick = form == "quick"
    config.name = f"BigGAN-deep, {'a few steps on synthetic images' if quick else 'ImageNet 128 x 128'}"
    config.metrics = ("frechet", "class_score") if quick else ("fid", "inception_score", "kid")
    recipe = "experiments/configs/gan_imagenet128.py" + (":quick" if quick else "")
    config.networks = (f"biggan_deep_128 {recipe}",)
    if quick:
        classifier = "experiments/configs/digit_classifier.py:quick"
        config.overrides = ("scores.network=classifier", f"scores.recipe={classifier}", "scores.samples=64")
        config.overrides += ("scores.quick_samples=32",)
    return config
