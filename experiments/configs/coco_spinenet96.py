"""Mask R-CNN with SpineNet-96 on COCO, from random weights, 1024x1024; SpineNet-49 and 143 as forms.

    python -m experiments.detect --config=experiments/configs/coco_spinenet96.py --workdir=runs/spinenet96 \\
        --config.data.data_dir=/data/coco --config.layer.spec=evonorm_b0

`:49` and `:143` after the file choose the other two, on 640x640 and 1280x1280. 256 images a step, 162,050
steps (350 epochs), rate 0.28, x0.1 at epochs 320 and 340, linear warm-up of 2,000 steps, momentum 0.9, weight
decay 4e-5 on kernels, scales from 0.5 to 2: the recipe of the released TPU detection code. The header of its
`spinenet96_mrcnn.yaml` tells box AP 47.18 and mask AP 41.53 for SpineNet-96 with BN-ReLU.
`:quick` runs a few steps of SpineNet-49 on digit scenes, as a test.

Hardware: a slice of 32 TPU chips. We have not run it. A step takes 1.6 TFLOP an image. We estimate 230
chip-hours at 40 % of the peak of a v5e.
"""

from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from experiments.configs.coco_defaults import get_recipe
from experiments.configs.detect_digits import shorten

#: The side of the images by the number in the network's name.
CANVAS = {"49": 640, "96": 1024, "143": 1280}


def get_config(form: str = "full") -> ConfigDict:
    """The recipe; `form` is "full", "49", "143" or "quick"."""
    size = {"full": "96", "quick": "49"}.get(form, form)
    if size not in CANVAS:
        raise UserError(f"there is no form {form!r}, only {', '.join(CANVAS)} and 'quick'")
    config = get_recipe(f"spinenet{size}", "quick" if form == "quick" else "full")
    config.model.update({"levels": (3, 7), "anchor_size": 3.0})
    config.layer.update({"epsilon": 1e-3, "momentum": 0.99})
    config.optimizer.learning_rate = 0.28
    config.optimizer.reference_batch = 256
    config.optimizer.drops = (320 / 350, 340 / 350)
    if form == "quick":
        shorten(config)
        return config
    config.batch_size = 256
    config.statistics_batch = None  # statistics are of the whole batch in the released recipe
    config.steps = 162_050
    config.data.canvas = CANVAS[size]
    config.data.scale = (0.5, 2.0)
    config.optimizer.warmup_steps = 2000
    return config
