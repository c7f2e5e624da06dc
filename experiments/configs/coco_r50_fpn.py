"""Mask R-CNN with ResNet-50 and a feature pyramid on COCO, from random weights, 1024x1024.

    python -m experiments.detect --config=experiments/configs/coco_r50_fpn.py --workdir=runs/r50_fpn \\
        --config.data.data_dir=/data/coco --config.layer.spec=evonorm_b0

64 images a step, 135,000 steps (73 epochs), rate 0.1, x0.1 at steps 120,000 and 125,000, momentum 0.9,
weight decay 4e-5 on kernels: we could not confirm these numbers, nor the AP that belongs to them. The warm-up
of 500 steps and the scales from 0.5 to 2 are defaults of the released TPU detection code.
`--config.model.name=resnet50_v2` has the pre-activation form of EvoNorm's released networks.
`:quick` after the file runs a few steps on digit scenes, as a test.

Hardware: a slice of 8 TPU chips. We have not run it. A step takes 2 TFLOP an image. We estimate 60 chip-hours
at 40 % of the peak of a v5e.
"""

from ml_collections import ConfigDict

from experiments.configs.coco_defaults import get_recipe
from experiments.configs.detect_digits import shorten


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full" or "quick"."""
    config = get_recipe("resnet50_v1", form)
    config.optimizer.learning_rate = 0.1
    config.optimizer.reference_batch = 64
    config.optimizer.drops = (120 / 135, 125 / 135)
    if form == "quick":
        shorten(config)
        return config
    config.batch_size = 64
    config.steps = 135_000
    config.data.scale = (0.5, 2.0)
    config.optimizer.warmup_steps = 500
    return config
