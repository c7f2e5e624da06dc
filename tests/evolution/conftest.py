"""Programs that the tests of the evolution share: building them takes far longer than running them."""

import jax
import pytest
from support.search_configs import digits, quick

from evonorms_jax.evolution.session import make_evaluator


@pytest.fixture(scope="session")
def evaluator():
    """The evaluator of the quick search, on two devices. It is never changed."""
    return make_evaluator(quick(), devices=jax.local_devices()[:2])


@pytest.fixture(scope="session", params=["quick", pytest.param("digits", marks=pytest.mark.exhaustive)])
def any_evaluator(request):
    """The evaluator of the quick search; exhaustively also the default search's on one tiny anchor."""
    if request.param == "quick":
        return request.getfixturevalue("evaluator")
    return make_evaluator(digits("resnet_tiny"), devices=jax.local_devices()[:2])
