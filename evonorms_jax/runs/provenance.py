"""Provenance of a result: the hardware, the versions and the date that are written beside every number."""

import datetime
import platform

import jax

import evonorms_jax


def hardware() -> dict[str, str | int]:
    """The kind and number of all devices of this run, and the architecture of the host's processor."""
    devices = jax.devices()
    return {"device": devices[0].device_kind, "devices": len(devices), "machine": platform.machine()}


def versions() -> dict[str, str]:
    """Versions of this package and of JAX."""
    return {"evonorms_jax": evonorms_jax.__version__, "jax": jax.__version__}


def now() -> datetime.datetime:
    """The time in UTC; `now().date().isoformat()` is the date that a result carries."""
    return datetime.datetime.now(datetime.UTC)
