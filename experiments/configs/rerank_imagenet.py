"""The paper's re-ranking: ten layers, three full networks on 90 % of ImageNet's training set, the best three.

    python -m experiments.rerank --config=experiments/configs/rerank_imagenet.py --search=runs/cifar10_b \\
        --workdir=gs://my-bucket/reranked --commands

Thirty trainings by the recipes `imagenet_*.py`, which name their hardware, each of an hour or more on a TPU
slice. Not run by us. `:quick` trains two layers on synthetic images.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    quick = check_form(form)
    config = ConfigDict()
    config.name = f"re-ranking on {'synthetic images' if quick else 'ImageNet'}"
    config.choose = "mean"  # best mean proxy accuracy, or "front" for the Pareto front
    config.top = 2 if quick else 10
    config.best = 1 if quick else 3
    config.seed = 0  # seed of the trainings
    form, variant = ("quick", "b0-quick") if quick else ("full", "b0")
    config.networks = (
        f"resnet50 experiments/configs/imagenet_resnet50.py:{form}",
        f"mobilenet_v2 experiments/configs/imagenet_mobilenet_v2.py:{form}",
        f"efficientnet_b0 experiments/configs/imagenet_efficientnet.py:{variant}",
    )
    config.overrides = ("data.validation_size=32" if quick else "data.validation_size=128117",)  # a tenth
    return config
