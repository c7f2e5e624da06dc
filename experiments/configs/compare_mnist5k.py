"""The paper's four search methods at equal cost on 5,000 digits, and three that begin with published layers.

    python -m experiments.compare_methods --config=experiments/configs/compare_mnist5k.py \\
        --workdir=runs/compare

Reproduces the ranking of arXiv 2004.02967, random < random + rejection < random search + rejection <
evolution, at a scale for two CPU cores. The seeds run one after the other. `--config.seeds=10` runs the first
one alone, and the same command with more seeds adds them: `--config.seeds=10 --config.seeds=11`. On two
x86-64 cores the paper's four methods took 31 minutes beside other work, and all seven take about 70,
estimated. `:quick` ends in about a minute, on synthetic images.
"""

from ml_collections import ConfigDict

from experiments.configs import search_mnist5k


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = search_mnist5k.get_config(form)
    config.name = "comparison on 5,000 digits"
    del config.method  # the methods below
    del config.seed  # the searches have one each
    # All of the paper's, and three that go beyond it: searches from BN-ReLU and GN-ReLU.
    config.methods = ("random", "random_rejection", "random_search", "evolution")
    config.methods += ("warm_random", "warm_uniform", "warm_tournament")
    # Seeds of proposals, weights, batches and crops, none of which chose a setting of the search. The images
    # are split the same way for all.
    config.seeds = (10, 11, 12, 13)
    # Every search ends with the candidate that its budget of steps pays for, wherever it stands.
    config.device_steps = 70_000  # steps of training and stability test, over all anchors
    config.budget = 1_000_000  # candidates of a search, more than the steps pay for
    config.stop_rule = (
        "all seeds of the config run, one after the other, and the table is made after the last one. No seed "
        "is added, repeated or left out because of its result."
    )

    config.evolution.seed_layers = ()  # a seed layer would be a candidate that only evolution gets
    config.rerank_replicas = 0  # the comparison re-ranks the layers of all methods alike

    # Baselines that are trained beside the chosen layers, by their names in the search space.
    config.known_layers = ("bn_relu", "bn_silu", "gn_relu")
    config.known_layers += tuple(f"evonorm_{series}{number}" for series in "bs" for number in range(3))

    config.reranking = ConfigDict()
    config.reranking.top = 10  # layers of each method and seed, no two alike: the paper's
    config.reranking.steps = config.proxy.steps
    config.reranking.schedule = "cosine"
    config.reranking.seeds = (100, 101, 102, 103)  # seeds of weights, batches and crops, fresh ones

    config.retraining = ConfigDict()
    config.retraining.steps = 2 * config.proxy.steps
    config.retraining.schedule = "cosine"
    config.retraining.seeds = (200, 201, 202)  # fresh ones again
    config.retraining.held_out_anchor = "mnasnet_narrow"  # took no part in the search
    if form == "quick":
        _set_quick(config)
    return config


def _set_quick(config: ConfigDict) -> None:
    config.name = "comparison on synthetic images"
    config.seeds = (10,)
    config.device_steps = 1500
    config.budget = 200
    config.evolution.initial_population = 2
    config.evolution.round_size = 8
    config.known_layers = ("bn_relu", "evonorm_b0")
    config.reranking.top = 2
    config.reranking.seeds = (100,)
    config.retraining.steps = 60
    config.retraining.seeds = (200,)
    config.retraining.held_out_anchor = "resnet_small"
