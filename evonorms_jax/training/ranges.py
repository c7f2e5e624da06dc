"""The ranges of the numbers in a config: one table for each kind of run, one message."""

import functools
import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """Numbers from `least` on and below `below`; `closed` lets in `below` itself."""

    least: float
    below: float = math.inf
    closed: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range; NaN lies in none."""
        return self.least <= value < self.below or (self.closed and value == self.below)

    def __str__(self):
        if self.closed:
            return f"from {self.least} to {self.below}"
        return f"at least {self.least}" + ("" if math.isinf(self.below) else f" and below {self.below}")


SEED = Range(0, 2**32)
COUNT = Range(1)
AMOUNT = Range(0)
SHARE = Range(0, 1)
PROBABILITY = Range(0, 1, closed=True)


def check_ranges(config: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raises `ValueError` at the first number that is out of its range or missing; None stands for no number.

    Args:
      config: nested.
      ranges: by key, with dots.
    """
    for key, allowed in ranges.items():
        try:
            value = functools.reduce(operator.getitem, key.split("."), config)
        except KeyError:
            raise ValueError(f"the config has no {key}: another version of this package wrote it") from None
        if value is not None and not allowed.holds(value):
            raise ValueError(f"{key} must be {allowed}, got {value}")
