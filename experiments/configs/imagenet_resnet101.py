"""Pre-activation ResNet-101 on ImageNet, 224x224, 90 epochs.

    python -m experiments.train --config=experiments/configs/imagenet_resnet101.py --workdir=runs/resnet101 \\
        --config.layer.spec=evonorm_b0

SGD with Nesterov momentum 0.9, 0.1 for 256 images, x0.1 at epochs 30, 60 and 80 of 90, weight decay 1e-4:
the recipe of the released ResNet code, as for ResNet-50. The paper has no result for this model on ImageNet.
`:quick` after the file runs 16 steps of 32 synthetic images, 32x32, as a test.

Hardware: the same as for ResNet-50, twice as long: 7.8 G multiply-adds an image. We have not run it.
"""

from ml_collections import ConfigDict

from experiments.configs.imagenet_defaults import cap_statistics_batch, get_recipe


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full" or "quick"."""
    config = get_recipe("resnet101", form, batch_size=1024, epochs=90)
    cap_statistics_batch(config, 128)  # a device's share of a batch on 8 devices
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    return config
