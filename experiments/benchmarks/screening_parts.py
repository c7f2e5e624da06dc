"""What each part of screening brings: the arithmetic of `screening.py`; nothing is measured here."""

from typing import Any, NamedTuple


class Times(NamedTuple):
    """Seconds that were measured.

    Attributes:
      plain_inert: of an inert candidate by plain JAX.
      plain_other: of any other one.
      filters: of all candidates, to find the inert ones and the duplicates.
      universal: of a candidate in the universal program on one device, without early ends; None if there was
        none to measure.
      one_device: of all candidates, as a search examines them on one device.
      devices: of all candidates, as a search examines them.
    """

    plain_inert: float
    plain_other: float
    filters: float
    universal: float | None
    one_device: float
    devices: float


def parts(times: Times, examined: int, inert: int, trained: int) -> list[dict[str, Any]]:
    """What screening takes as its parts are switched on one after the other.

    Args:
      times: see `Times`.
      examined: number of candidates.
      inert: how many of them are inert.
      trained: how many are neither inert nor a duplicate, and pass what needs no training.
    """
    others = examined - inert
    universal = None if times.universal is None else times.filters + trained * times.universal
    steps = [
        ("plain JAX", "plain", inert * times.plain_inert + others * times.plain_other),
        ("+ inert skipped", "plain", times.filters + others * times.plain_other),
        ("+ duplicates skipped", "plain", times.filters + trained * times.plain_other),
        ("+ one program for all", "sample", universal),
        ("+ early ends", "all", times.one_device),
        ("+ all devices", "all", times.devices),
    ]
    rows: list[dict[str, Any]] = []
    for part, measured_on, seconds in steps:
        if seconds is not None:
            rows.append({
                "part": part,
                "measured_on": measured_on,
                "seconds": seconds,
                "per_hour": 3600 * examined / seconds,
                "gain": (rows[-1]["seconds"] if rows else seconds) / seconds,
                "ratio": (rows[0]["seconds"] if rows else seconds) / seconds,
            })  # fmt: skip
    return rows
