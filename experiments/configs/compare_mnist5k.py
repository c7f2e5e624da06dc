"""Random layers, random search and evolution side by side on the 5,000 embedded digits.

    python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py \\
        --workdir=runs/compare

All searches have the settings of the default search, except that evolution starts from random layers, as the
others do, instead of published ones. About 70 minutes on two x86-64 cores. `:quick` takes a few minutes, on
synthetic images.
"""

from ml_collections import ConfigDict

from experiments.configs import search_mnist5k


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = search_mnist5k.get_config(form)
    config.name = "comparison on 5,000 digits"
    del config.method  # every method takes part
    del config.seed  # the searches have one each
    # Seeds of proposals, weights, batches and crops. The images are split the same way for all.
    config.seeds = (0, 1, 2)
    config.budget = 2500  # candidates of each search
    config.evolution.seed_layers = ()  # a seed layer would be a candidate that only evolution gets

    # Baselines that are trained beside the chosen layers, by their names in the search space.
    config.known_layers = ("bn_relu", "bn_silu", "gn_relu")
    config.known_layers += tuple(f"evonorm_{series}{number}" for series in "bs" for number in range(3))

    config.retraining = ConfigDict()
    config.retraining.steps = 450  # three times as long as in the search
    config.retraining.schedule = "cosine"
    config.retraining.seeds = (100, 101, 102)  # seeds of weights, batches and crops, fresh ones
    config.retraining.held_out_anchor = "mnasnet_small"  # took no part in the search
    if form == "quick":
        config.name = "comparison on synthetic images"
        config.seeds = (0, 1)
        config.budget = 40
        config.known_layers = ("bn_relu", "evonorm_b0")
        config.retraining.steps = 60
        config.retraining.seeds = (100,)
        config.retraining.held_out_anchor = "resnet_small"
    return config
