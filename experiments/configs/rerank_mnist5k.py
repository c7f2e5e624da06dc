"""Re-ranking of a search on the 5,000 embedded digits, with the small networks trained longer.

    python -m experiments.rerank --config=experiments/configs/rerank_mnist5k.py --search=runs/mnist5k \\
        --workdir=runs/reranked

Thirty trainings of about a minute on one CPU core, by the recipe of `experiments/configs/train.py`, with
14x14 crops and 600 steps where the search had 10x10 and 150. `:quick` trains two layers on synthetic images.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form

NETWORKS = ("resnet_small", "mobilenet_small", "efficientnet_small")
DIGITS = ("data.image_size=16", "data.crop=14")
QUICK = ("data.source=synthetic", "data.image_size=8", "data.crop=8", "data.train_size=64")


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.name = f"re-ranking on {'synthetic images' if quick else '5,000 digits'}"
    config.choose = "mean"  # best mean proxy accuracy, or "front" for the Pareto front
    config.top = 2 if quick else 10
    config.best = 1 if quick else 3
    config.seed = 0  # seed of the trainings
    recipe = "experiments/configs/train.py" + (":quick" if quick else "")
    names = NETWORKS[:2] if quick else NETWORKS
    config.networks = tuple(f"{name} {recipe} model.name={name}" for name in names)
    # For the recipes of all networks. The layers were found with these groups of channels. A tenth of the
    # images, to score on, is drawn anew, because the search chose by its own.
    drawn = ("data.seed=1", "data.validation_size=450")
    config.overrides = QUICK if quick else ("steps=600", "layer.group_size=32", *DIGITS, *drawn)
    return config
