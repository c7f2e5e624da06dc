"""Tensors of a network by name, and the CRC by which a result names them."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def flat_tensors(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of all collections by their path within the collection, joined by slashes."""
    found = {}
    for tree in variables.values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            found[jax.tree_util.keystr(path, simple=True, separator="/")] = leaf
    return found


def fingerprint(tensors: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of names, dtypes, shapes and values, in the order of the names, as 8 hexadecimal digits."""
    crc = 0
    for name in sorted(tensors):
        values = np.ascontiguousarray(tensors[name])
        crc = zlib.crc32(f"{name} {values.dtype} {values.shape}".encode(), crc)
        crc = zlib.crc32(values.tobytes(), crc)
    return f"{crc:08x}"
