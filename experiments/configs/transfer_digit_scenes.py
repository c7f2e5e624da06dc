"""Instance segmentation of digit scenes with four layers: box and mask AP, and few images for statistics.

    python -m experiments.tables --config=experiments/configs/transfer_digit_scenes.py --workdir=runs/scenes

The recipe is `detect_digits.py` with 700 steps: 78 minutes in all on two x86-64 cores beside other work. The
number beside a network counts the images that share batch statistics. A layer without batch statistics has
one training for both. `--config.layers=LAYER`, once for each layer, chooses others, such as
`runs/mnist5k/top_layers.json#0` of a search. The table shows whether a layer works in a detector, and it does
not rank layers as COCO does. `:quick` trains two layers for a few steps.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form
from experiments.configs.table_defaults import get_table


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = get_table("detection", metrics=("test.box_AP", "test.mask_AP"))
    config.name = "transfer, instance segmentation of digit scenes"
    config.layers = ("bn_relu", "gn_relu", "evonorm_b0", "evonorm_s0")
    config.batches = (8, 2)  # images that share batch statistics, of the 8 of a step
    recipe = "experiments/configs/detect_digits.py" + (":quick" if quick else "")
    config.networks = (f"mask_rcnn {recipe}",)
    config.overrides = ("steps=700",)
    if quick:
        config.layers = ("bn_relu", "evonorm_s0")
        config.seeds, config.overrides = (0,), ()
    return config
