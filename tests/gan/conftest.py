"""Tiny networks for all tests of image synthesis."""

import pytest
from support.gan_configs import tiny_layouts


@pytest.fixture(scope="session", autouse=True)
def one_block():
    """Layouts for images of side 8."""
    with tiny_layouts():
        yield
