"""Tensors of a network by name: their files, their checks, and the CRC by which a result names them."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import absolute, write_whole


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


def check_tensors(
    path: epath.PathLike,
    network: str,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Raises `ValueError`, which names the first wrong tensor, unless a file has those of a network.

    Args:
      path: file of the tensors, for the message.
      network: name of the network, for the message.
      shapes: shape of each tensor by its name. A file may have further axes of size 1.
      tensors: tensors of the file. They may be more than the shapes.
    """
    for name, shape in shapes.items():
        if name not in tensors:
            raise UserError(f"{path} is not {network}: it has no tensor {name} {shape}")
        found = np.asarray(tensors[name])
        if found.shape != shape and np.squeeze(found).shape != shape:
            raise UserError(f"{path} is not {network}: {name} must be {shape}, got {found.shape}")
        if found.dtype.kind != "f" or not np.isfinite(found).all():
            raise UserError(f"{path} is damaged: {name} must be finite numbers, got {found.dtype}")


def read_npz(path: epath.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` by name. Raises `ValueError` if it is damaged."""
    path = absolute(path)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file)
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged: {error}") from None


def write_npz(path: epath.PathLike, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as an `.npz`, whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **tensors)
    write_whole(absolute(path), buffer.getvalue())
