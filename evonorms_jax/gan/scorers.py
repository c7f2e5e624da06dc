"""From a config to its scorer."""

import functools
import json

from ml_collections import ConfigDict

from evonorms_jax.data import DataSettings, load_images
from evonorms_jax.errors import UserError
from evonorms_jax.gan.classifier_scores import ClassifierScorer
from evonorms_jax.gan.inception_scores import InceptionScorer, RealImages, open_network
from evonorms_jax.gan.score_classifier import train_classifier
from evonorms_jax.gan.scoring import Scorer, ScoreSettings, check_settings
from evonorms_jax.runs.config_checks import load_config

#: Keys of `config.data` that choose the images and their parts, and so those of the classifier too.
_IMAGES = ("source", "seed", "train_size", "validation_size", "image_size", "data_dir")


def make_scorer(config: ConfigDict) -> Scorer:
    """The scorer of the groups `scores` and `data` of a config. The last one is kept.

    On first use it trains the classifier, with a display of its own, or collects the features of the real
    images. Call it before another display is shown.

    Raises:
      ValueError: a setting is unknown, the config wants no scores, or a file of weights or statistics is
        missing or does not fit.
      DataNotFoundError: the data are missing.
    """
    return _make(config.scores.to_json(sort_keys=True), config.data.to_json(sort_keys=True))


@functools.lru_cache(maxsize=1)
def _make(scores: str, data: str) -> Scorer:
    """The scorer from both groups as JSON."""
    settings, fields = ScoreSettings(**json.loads(scores)), json.loads(data)
    check_settings(settings)
    data_settings = DataSettings(**fields)
    if settings.network == "inception":
        network = open_network(settings)
        return InceptionScorer(network, RealImages(data_settings, settings.part), settings)
    if data_settings.stream:
        raise UserError("scores.network=classifier needs images in memory: data.stream=false")
    images = load_images(data_settings, with_test=True)
    recipe = load_config(settings.recipe)
    for name in _IMAGES:
        recipe.data[name] = fields[name]
    classifier = train_classifier(recipe, images, settings.cache)
    return ClassifierScorer(classifier, images, settings)
