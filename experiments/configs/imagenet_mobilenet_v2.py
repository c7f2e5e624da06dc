"""MobileNetV2 on ImageNet, 224x224, 350 epochs.

    python -m experiments.train --config=experiments/configs/imagenet_mobilenet_v2.py \\
        --workdir=runs/mobilenet --config.layer.spec=evonorm_b0

SGD, 0.1 for 256 images, warm-up and a cosine to 0: we believe that the paper does the same. Its number of
epochs, label smoothing, dropout and weight decay are unknown; ours are those of the MobileNets' own papers or
our choice. Published top-1 (arXiv 2004.02967): BN-ReLU 76.2 %, EvoNorm-B0 77.7 %.
`:quick` after the file runs 16 steps of 32 synthetic images, 32x32, as a test.

Hardware: a slice of 8 TPU chips. We have not run it. 0.30 G multiply-adds an image make 8e17 FLOP. Such a
network reaches some 10 % of the peak, which would be 1.5 hours on a v5e-8. Reading the images probably takes
longer.
"""

from ml_collections import ConfigDict

from experiments.configs.imagenet_defaults import cap_statistics_batch, get_recipe


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full" or "quick"."""
    config = get_recipe("mobilenet_v2", form, batch_size=1024, epochs=350)
    cap_statistics_batch(config, 128)
    config.label_smoothing = 0.1
    config.model.dropout_rate = 0.2
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "cosine"
    config.optimizer.weight_decay = 4e-5
    return config
