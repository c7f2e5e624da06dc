"""The classifier whose features score generated digits: the small ResNet on 4,000 real digits.

    python -m experiments.train --config=experiments/configs/digit_classifier.py --workdir=runs/classifier

`experiments.generate` trains it by itself on first use, in the folder `scores.cache`. Its last feature map
has 64 channels. The crops are smaller than the digits, so that the network does not depend on their place.
`:quick` trains a smaller network for 60 steps.
"""

from ml_collections import ConfigDict

from experiments.configs import train


def get_config(form: str = "full") -> ConfigDict:
    """The config; `form` is "full" or "quick"."""
    config = train.get_config(form)
    config.layer.spec = "bn_relu"
    if form == "quick":
        config.steps = 60
        config.model.name = "resnet_tiny"
    return config
