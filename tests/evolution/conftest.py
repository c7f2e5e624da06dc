"""Programs that the tests of the evolution share: building them takes far longer than running them."""

import functools

import jax
import pytest
from support.search_configs import digits, quick

from evonorms_jax.evolution.session import make_evaluator


@pytest.fixture(scope="session")
def evaluator_on():
    """The evaluator of the quick search on a number of devices. Tests do not change it for good."""
    return functools.cache(lambda count: make_evaluator(quick(), devices=jax.local_devices()[:count]))


@pytest.fixture(scope="session")
def evaluator(evaluator_on):
    """The one on two devices."""
    return evaluator_on(2)


@pytest.fixture(scope="session", params=["quick", pytest.param("digits", marks=pytest.mark.exhaustive)])
def any_evaluator(request):
    """The evaluator of the quick search, exhaustively also the default search's on one tiny anchor."""
    if request.param == "quick":
        return request.getfixturevalue("evaluator")
    return make_evaluator(digits("resnet_tiny"), devices=jax.local_devices()[:2])
