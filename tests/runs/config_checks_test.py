"""Numbers of a config that are refused by their keys."""

import math
import re

import pytest
from ml_collections import ConfigDict

from evonorms_jax.runs.config_checks import AMOUNT, COUNT, PROBABILITY, SEED, SHARE, check_ranges


def check(allowed, value):
    check_ranges(ConfigDict({"data": {"number": value}}), {"data.number": allowed})


@pytest.mark.parametrize(
    ("allowed", "value", "limit"),
    [
        (SEED, -1, "at least 0 and below 4294967296"),
        (SEED, 2**32, "at least 0 and below 4294967296"),
        (COUNT, 0, "at least 1"),
        (AMOUNT, -1e-4, "at least 0"),
        (AMOUNT, math.nan, "at least 0"),
        (SHARE, 1.0, "at least 0 and below 1"),
        (PROBABILITY, 1.5, "from 0 to 1"),
        (PROBABILITY, math.nan, "from 0 to 1"),
    ],
)
def test_a_number_out_of_its_range(allowed, value, limit):
    with pytest.raises(ValueError, match=f"^data.number must be {re.escape(limit)}, got {value}$"):
        check(allowed, value)


def test_a_config_of_another_version():
    with pytest.raises(ValueError, match=r"has no data\.workers: another version of this package wrote it"):
        check_ranges(ConfigDict({"data": {"threads": 1}}), {"data.workers": AMOUNT})


@pytest.mark.parametrize(
    ("allowed", "value"),
    [(SEED, 0), (SEED, 2**32 - 1), (COUNT, 1), (AMOUNT, None), (SHARE, 0.9), (PROBABILITY, 1.0)],
)
def test_a_number_in_its_range_and_none_at_all(allowed, value):
    check(allowed, value)
