"""Pre-activation ResNet-50 on ImageNet, 224x224, 90 epochs.

    python -m experiments.train --config=experiments/configs/imagenet_resnet50.py --workdir=runs/resnet50 \\
        --config.layer.spec=evonorm_b0

SGD with Nesterov momentum 0.9, 0.1 for 256 images, x0.1 at epochs 30, 60 and 80 of 90, weight decay 1e-4:
the recipe of the released ResNet code, which the paper uses.
Published top-1 (arXiv 2004.02967): BN-ReLU 76.3 %, EvoNorm-B0 76.6 %.
`:quick` after the file runs 16 steps of 32 synthetic images, 32x32, as a test.

Hardware: a slice of 8 TPU chips or a host of 8 GPUs. We have not run it. 4.1 G multiply-adds an image make
2.8e18 FLOP in all. We estimate 2 hours at a quarter of the peak of a v5e-8 (1.6e15 FLOP/s in bfloat16).
"""

from ml_collections import ConfigDict

from experiments.configs.imagenet_defaults import cap_statistics_batch, get_recipe


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full" or "quick"."""
    config = get_recipe("resnet50", form, batch_size=1024, epochs=90)
    cap_statistics_batch(config, 128)  # a device's share of a batch on 8 devices
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    return config
