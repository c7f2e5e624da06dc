"""Layers in the generator of a small BigGAN on 4,000 embedded digits, by distance, score and agreement.

    python -m experiments.tables --config=experiments/configs/transfer_gan_digits.py --workdir=runs/gans

Each cell is a training of `experiments.generate` with the recipe of `gan_digits.py`, of three minutes on
two x86-64 cores, and the first one trains the classifier of the scores too. A training that was lost is left
out of the median and counted. Other rows, such as layers that a search found, replace these:
`--config.layers=bn_relu --config.layers=runs/mnist5k/top_layers.json#0`. With 3 seeds and a network of this
size, the seeds may hide the order of the layers. `:quick` trains two layers for a few steps.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form
from experiments.configs.table_defaults import get_table

LAYERS = ("bn_relu", "gn_relu", "ln_relu", "pn_relu", "evonorm_b0", "evonorm_s0")


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = get_table("gan", metrics=("digit_frechet", "digit_score", "agreement"))
    config.name = f"BigGAN, {'a few steps on digits' if quick else '5,000 digits'}"
    config.layers = LAYERS
    config.networks = (f"digits experiments/configs/gan_digits.py{':quick' if quick else ''}",)
    if quick:
        config.layers = ("bn_relu", "evonorm_s0")
        config.seeds = (0,)
    return config
