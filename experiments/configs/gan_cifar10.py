"""BigGAN on CIFAR-10 with any layer in the generator, 32x32.

    python -m experiments.generate --config=experiments/configs/gan_cifar10.py --workdir=runs/gan_cifar10 \\
        --config.layer.spec=evonorm_s0

CIFAR-10 is `tfds:cifar10`, prepared once as array_record. The networks are the 32x32 ones of the authors'
public PyTorch code, which the publication (arXiv 1809.11096) does not have. The rates, 2e-4 both, four steps
of the discriminator and batches of 50 are that code's as we remember them. Mirrored images and the average's
start are ours. `:quick` runs a few steps on small synthetic images, as a test.

Hardware: one GPU or TPU chip. We have not run it.
"""

from ml_collections import ConfigDict

from experiments.configs import gan_digits
from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = gan_digits.get_config()
    config.steps = 100_000
    config.batch_size = 50
    config.eval_batch_size = 250
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 2500
    config.discriminator_steps = 4
    config.shift = 0
    config.average_decay = 0.9999
    config.average_start = 1000
    config.networks.update({"name": "biggan", "width": None, "embedding": 128, "embedding_scale": 1.0})
    config.layer.group_size = None  # 32 groups, whatever the width
    config.data.update({"source": "cifar10", "crop": 32, "flip": True})
    config.adam.generator_rate = config.adam.discriminator_rate = 2e-4
    config.adam.b2 = 0.999
    config.adam.epsilon = 1e-8
    config.scores.network = "inception"
    config.scores.samples = 50_000
    if quick:
        config.steps = config.eval_every = config.checkpoint_every = 8
        config.batch_size = config.eval_batch_size = 16
        config.discriminator_steps = 1
        config.log_every = 2
        config.networks.width = 4
        config.data.update({"source": "synthetic:4x3", "image_size": 32})
        config.data.update({"train_size": 128, "validation_size": 32})
        config.scores.network = "none"
    return config
