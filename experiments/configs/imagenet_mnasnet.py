"""MnasNet-A1 on ImageNet, 224x224, 350 epochs.

    python -m experiments.train --config=experiments/configs/imagenet_mnasnet.py --workdir=runs/mnasnet \\
        --config.layer.spec=evonorm_b0

SGD, 0.1 for 256 images, warm-up and a cosine to 0: we believe that the paper does the same. It does not say
which MnasNet it means. Epochs, label smoothing, dropout and weight decay are those of MnasNet's paper or our
choice. Published top-1 (arXiv 2004.02967): BN-ReLU 77.6 %, EvoNorm-B0 77.9 %.
`:quick` after the file runs 16 steps of 32 synthetic images, 32x32, as a test.

Hardware: the same as for MobileNetV2. We have not run it.
"""

from ml_collections import ConfigDict

from experiments.configs.imagenet_defaults import cap_statistics_batch, get_recipe


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full" or "quick"."""
    config = get_recipe("mnasnet_a1", form, batch_size=1024, epochs=350)
    cap_statistics_batch(config, 128)
    config.label_smoothing = 0.1
    config.model.dropout_rate = 0.2
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 1e-5
    return config
