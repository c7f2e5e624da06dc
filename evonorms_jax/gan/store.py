"""Files with features and moments of real images, which name the network that computed them."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.tensors import fingerprint, read_npz, write_npz

_ABOUT = "about"


def save(path: epath.PathLike, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Writes arrays with their record, content for JSON, and a checksum of both, as `.npz`."""
    about = {**about, "checksum": _checksum(arrays, about)}
    path = absolute(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_npz(path, {**arrays, _ABOUT: np.array(json.dumps(about))})


def load(path: epath.PathLike, expected: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads arrays and their record.

    Raises `ValueError` if there is no such file, it is damaged, or its record differs from the expected
    values: distances to statistics of another network or resize convention have no meaning.
    """
    path = absolute(path)
    if not path.exists():
        raise UserError(f"there is no file {path} with statistics of real images")
    try:
        arrays = read_npz(path)
        about = json.loads(str(arrays.pop(_ABOUT)))
        checksum = about.pop("checksum")
    except (ValueError, KeyError):
        raise UserError(f"{path} is damaged or no file of statistics: remove it") from None
    if checksum != _checksum(arrays, about):
        raise UserError(f"{path} is damaged, its checksum differs: remove it")
    for name, value in expected.items():
        if about.get(name) != value:
            raise UserError(
                f"{path} has statistics of {name} {about.get(name)!r}, and {value!r} is asked for"
            )
    return arrays, about


def _checksum(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> str:
    record = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    return fingerprint({**arrays, _ABOUT: record})
