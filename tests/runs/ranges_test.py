"""Every number of every config has a range, and a number out of it is refused by its key."""

import functools
import importlib
import math
import numbers
import operator
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from evonorms_jax.runs.config_checks import flat
from evonorms_jax.runs.ranges import (
    AMOUNT,
    COUNT,
    POSITIVE,
    PROBABILITY,
    RANGES,
    SEED,
    SHARE,
    SIDE,
    Range,
    check_ranges,
)

FOLDER = Path(__file__).parents[2] / "experiments" / "configs"
#: A kind of config, and a key that configs of no other kind have.
MARKS = {
    "comparison": "retraining",
    "search": "proxy",
    "detection": "roi_align",
    "training": "model",
    "gan": "adam",
    "table": "batches",
    "reranking": "top",
}


def kind_of(config):
    return next(kind for kind, mark in MARKS.items() if mark in config)


def configs():
    """Name and config of every form of every file."""
    for path in sorted(FOLDER.glob("*.py")):
        module = importlib.import_module(f"experiments.configs.{path.stem}")
        if hasattr(module, "get_config"):
            yield f"{path.stem}:quick", module.get_config("quick")
            if path.stem != "search_tfds":  # has no other form without the name of a data set
                yield path.stem, module.get_config()


CONFIGS = dict(configs())


def is_number(value):
    return isinstance(value, numbers.Number) and not isinstance(value, bool)


def number_keys(config):
    """Dotted keys of numbers, of tuples with a number, and of placeholders for numbers."""
    keys = set()
    for key, value in flat(config).items():
        group, _, leaf = key.rpartition(".")
        kind = (config[group] if group else config).get_type(leaf)
        members = value if isinstance(value, tuple) else (value,)
        if kind in (int, float) or any(map(is_number, members)):
            keys.add(key)
    return keys


@pytest.mark.parametrize("name", CONFIGS)
def test_every_number_of_a_config_has_a_range_that_holds_it(name):
    config = CONFIGS[name]
    assert number_keys(config) <= set(RANGES[kind_of(config)])
    check_ranges(config, kind_of(config))


def test_numbers_are_found_wherever_they_are():
    config = ConfigDict({"a": 1, "b": {"c": (0.5, "x"), "d": True, "e": ("y",)}, "f": "z"})
    config.b.g = CONFIGS["train"].get_ref("epochs")
    assert number_keys(config) == {"a", "b.c", "b.g"}


def with_number(kind, key, value):
    """A config of the kind, as plain dicts, with this number, in a tuple where there is one."""
    config = next(config for config in CONFIGS.values() if kind_of(config) == kind).to_dict()
    *groups, leaf = key.split(".")
    inner = functools.reduce(operator.getitem, groups, config)
    inner[leaf] = (*inner[leaf], value) if isinstance(inner[leaf], tuple) else value
    return config


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind in RANGES for key in RANGES[kind]])
def test_no_number_may_be_infinite_or_none_at_all(kind, key):
    for value in (math.nan, math.inf, -math.inf, True, "1", -1, -0.5):
        with pytest.raises(ValueError, match=f"^{re.escape(key)} must be .*, got {value!r}$"):
            check_ranges(with_number(kind, key, value), kind)


@pytest.mark.parametrize(
    ("key", "value", "limit"),
    [
        ("seed", -1, "at least 0 and below 4294967296"),
        ("seed", 2**32, "at least 0 and below 4294967296"),
        ("steps", 0, "at least 1"),
        ("steps", 1.5, "at least 1"),
        ("steps", 2**31, "below 2147483648"),
        ("layer.momentum", 1.0, "at least 0 and below 1"),
        ("model.width", 0.0, "above 0 and at most 100"),
        ("data.image_size", 100_000, "from 1 to 4096"),
    ],
)
def test_the_message_names_the_limit(key, value, limit):
    with pytest.raises(ValueError, match=f"^{key} must be {limit}, got {value}$"):
        check_ranges(with_number("training", key, value), "training")


@pytest.mark.parametrize(
    ("allowed", "inside", "outside"),
    [
        (SEED, (0, 2**32 - 1), (-1, 2**32, 0.0)),
        (COUNT, (1, 2**31 - 1), (0, 2**31, 1.0)),
        (AMOUNT, (0, 0.0, 1e300), (-1e-9,)),
        (POSITIVE, (5e-324, 1), (0, 0.0)),
        (SHARE, (0, 0.999), (1, 1.0)),
        (PROBABILITY, (0, 1, 1.0), (1.0001,)),
        (SIDE, (1, 4096), (0, 4097)),
        (Range(0, 2, closed=True, open=True), (0.1, 2), (0, 2.1)),
    ],
)
def test_the_ends_of_a_range(allowed, inside, outside):
    assert all(map(allowed.holds, inside)) and not any(map(allowed.holds, outside))


def test_a_config_of_another_version():
    config = CONFIGS["train"].to_dict()
    del config["data"]["workers"]
    with pytest.raises(ValueError, match=r"has no data\.workers: another version of this package wrote it"):
        check_ranges(config, "training")
