"""The paper's search for the B series on CIFAR-10: 2,000 steps at a constant learning rate, three anchors.

    python -m experiments.search --config=experiments/configs/search_cifar10_b.py --workdir=runs/cifar10_b

CIFAR-10 must be prepared for tensorflow_datasets as array_record. The search is made for an accelerator.
We have not run it in full. `:quick` runs it on synthetic images in about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from experiments.configs.search_defaults import check_form, get_defaults, set_quick


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = get_defaults()
    config.name = "EvoNorm-B search on CIFAR-10"
    if check_form(form):
        set_quick(config)
    return config
