"""Published scores, on machines that have the weights of the Inception network and the data."""

import os

import numpy as np
import pytest

from evonorms_jax.data import DataNotFoundError, load
from evonorms_jax.gan import inception_weights
from evonorms_jax.gan.features import Embedder, inception_network
from evonorms_jax.gan.scores import class_score

WEIGHTS = os.environ.get(inception_weights.VARIABLE)


@pytest.mark.exhaustive
@pytest.mark.skipif(not WEIGHTS, reason=f"{inception_weights.VARIABLE} names no weights")
def test_the_inception_score_of_the_training_images_of_cifar10():
    """11.237 ± 0.095 in the README of torch-fidelity, whose splits are other ones."""
    try:
        data = load("cifar10")
    except DataNotFoundError as error:
        pytest.skip(str(error))
    images = np.concatenate([data.train.images, data.validation.images])
    network = inception_network(inception_weights.load(WEIGHTS), "tf1")
    score = class_score(Embedder(network, 128)(images).logits)
    assert score.mean == pytest.approx(11.237, abs=0.03)
    assert score.deviation == pytest.approx(0.095, abs=0.06)
