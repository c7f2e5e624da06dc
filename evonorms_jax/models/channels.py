"""Rounding of channel counts under a width multiplier; the one place that does it."""


def make_divisible(channels: float, divisor: int = 8) -> int:
    """`channels` rounded to a multiple of `divisor`, half up, at least `divisor`.

    If rounding down would lose more than 10 % the next multiple is taken. Source: the released
    MobileNet and EfficientNet code, where it is `make_divisible` and `round_filters`.

    Args:
      channels: a positive number, usually an integer times a width multiplier.
      divisor: a positive integer.

    Raises:
      ValueError: if `channels` is not positive.
    """
    if channels <= 0:
        raise ValueError(f"a channel count must be positive, got {channels}")
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
