"""The default search for layers without batch statistics, from random graphs alone.

    python -m experiments.search --config=experiments/configs/search_mnist5k_s.py --workdir=runs/mnist5k_s

As `search_mnist5k.py`, but a layer that uses statistics of the batch is rejected, as in the paper's S series.
Compare the layers found with GN-ReLU, FRN and EvoNorm-S0. `:quick` ends in about a minute.
"""

from ml_collections import ConfigDict

from experiments.configs import search_mnist5k


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = search_mnist5k.get_config(form)
    config.name = "search on 5,000 digits without batch statistics"
    config.rejection.allow_batch_dependent = False
    return config
