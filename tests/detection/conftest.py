"""Digit scenes that the tests of detection share."""

import pytest
from support.detection import DIGITS

from evonorms_jax.detection import coco
from evonorms_jax.detection.settings import CocoSettings


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Settings of a few digit scenes."""
    sizes = dict(zip(("train_size", "validation_size", "test_size"), DIGITS, strict=True))
    folder = str(tmp_path_factory.mktemp("scenes"))
    return CocoSettings(
        "digits", data_dir=folder, canvas=128, slots=12, threads=2, test_split="test2017", **sizes
    )


@pytest.fixture(scope="session")
def scenes(digits):
    """Their folder in COCO's layout."""
    return coco.find_folder(digits)
