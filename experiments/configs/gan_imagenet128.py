"""BigGAN-deep or BigGAN on ImageNet with any layer in the generator, 128x128 by default.

    python -m experiments.generate --config=experiments/configs/gan_imagenet128.py --workdir=runs/biggan \\
        --config.layer.spec=evonorm_s0

Forms after the file: `deep` (the default), `plain`, `deep64`, `plain64`, `deep256`, `plain256` and `quick`.
`:quick` runs a few steps on small synthetic images, as a test.

The recipe is that of Brock et al. 2019 (arXiv 1809.11096) as far as the authors' public PyTorch code and
released networks confirm it: hinge loss, Adam with b1 0 and b2 0.999, batches of 2,048, z from N(0, 1),
orthogonal starts, the average of the generator with decay 0.9999, a copy of the weights until step 20,000.
Two steps of the discriminator, the rates 5e-5 and 2e-4 (2.5e-5 both at 256), and statistics over the whole
batch are those of the publication as we remember it. Ours are the defaults that the EvoNorm paper
(arXiv 2004.02967) does not tell: the last norm of the generator is replaced too, and groups are 32.

Hardware: a slice of 128 TPU v5e chips or more. We have not run it. 0.7 PFLOP a step of `deep` and 150,000
steps make 1e20 FLOP, 3 hours at 35 % of the peak of 128 such chips.
"""

from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from experiments.configs import gan_digits

#: Networks, side, and rates of generator and discriminator, by form.
FORMS = {
    "deep": ("biggan_deep", 128, 5e-5, 2e-4),
    "plain": ("biggan", 128, 5e-5, 2e-4),
    "deep64": ("biggan_deep", 64, 5e-5, 2e-4),
    "plain64": ("biggan", 64, 5e-5, 2e-4),
    "deep256": ("biggan_deep", 256, 2.5e-5, 2.5e-5),
    "plain256": ("biggan", 256, 2.5e-5, 2.5e-5),
}


def get_config(form: str = "deep") -> ConfigDict:
    """The recipe of a form, `full` being `deep`."""
    quick = form == "quick"
    name = "deep" if form in ("quick", "full") else form
    if name not in FORMS:
        raise UserError(f"form must be {', '.join(FORMS)} or quick, got {form!r}")
    networks, side, generator_rate, discriminator_rate = FORMS[name]
    config = gan_digits.get_config()
    config.steps = 150_000
    config.batch_size = 2048
    config.eval_batch_size = 1024
    config.dtype = "bfloat16"
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 2500
    config.discriminator_steps = 2
    config.shift = 0
    config.average_decay = 0.9999
    config.average_start = 20_000
    config.networks.update(
        {"name": networks, "width": None, "embedding": 128, "embedding_scale": 1.0, "wide_output": True}
    )
    config.layer.group_size = None  # 32 groups, whatever the width
    config.data.update(
        {"source": "tfds:imagenet2012", "stream": True, "crop": side, "validation_size": 10_000}
    )
    config.adam.generator_rate = generator_rate
    config.adam.discriminator_rate = discriminator_rate
    config.adam.b2 = 0.999
    config.sampling.batch_size = 1024
    config.scores.network = "inception"
    config.scores.samples = 50_000
    config.scores.quick_samples = 10_000
    if quick:
        config.steps = config.eval_every = config.checkpoint_every = 8
        config.batch_size = config.eval_batch_size = 16
        config.log_every = 2
        config.networks.width = 4
        config.data.update({"source": "synthetic:4x3", "stream": False, "image_size": 28, "crop": 28})
        config.data.update({"train_size": 128, "validation_size": 32})
        config.sampling.batch_size = 16
        config.scores.network = "none"
    return config
