"""The paper's re-ranking: ten layers, three full networks on 90 % of ImageNet's training set, the best three.

    python -m experiments.rerank --config=experiments/configs/rerank_imagenet.py --search=runs/cifar10_b \\
        --workdir=gs://my-bucket/reranked --commands

Thirty trainings by the recipes `imagenet_*.py`, each of an hour or more on a TPU slice: see there. Not run
by us. `:quick` takes two layers and made-up images.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form

RECIPES = {"resnet50": "resnet50", "mobilenet_v2": "mobilenet_v2", "mnasnet": "mnasnet"}


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.name = "re-ranking on ImageNet"
    config.choose = "mean"  # proxy accuracy; or "front", the Pareto front
    config.top = 2 if quick else 10
    config.best = 1 if quick else 3
    config.seed = 0  # of the trainings
    config.networks = ConfigDict()
    suffix = ":quick" if quick else ""
    overrides = () if quick else ("data.validation_size=128117",)  # a tenth
    for name, recipe in RECIPES.items():
        path = f"experiments/configs/imagenet_{recipe}.py{suffix}"
        config.networks[name] = ConfigDict({"recipe": path, "overrides": overrides})
    return config
