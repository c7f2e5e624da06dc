"""The paper's search for the S series on CIFAR-10: no batch statistics, 5,000 steps with cosine decay.

    python -m experiments.search --config=experiments/configs/search_cifar10_s.py --workdir=runs/cifar10_s

CIFAR-10 must be prepared for tensorflow_datasets as array_record. The search is made for an accelerator.
We have not run it in full. `:quick` runs it on synthetic images in about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form, get_defaults, set_quick


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = get_defaults()
    config.name = "EvoNorm-S search on CIFAR-10"
    config.rejection.allow_batch_dependent = False
    config.proxy.steps = 5000
    config.proxy.schedule = "cosine"
    if check_form(form):
        set_quick(config)
    return config
