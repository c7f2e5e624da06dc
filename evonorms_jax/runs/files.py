"""Paths, and files that are written whole or not at all."""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from etils import epath

if TYPE_CHECKING:
    from PIL import Image

DRAFT = ".draft"


def expanded(path: epath.PathLike) -> epath.Path:
    """The path with `~` replaced by the home directory. Every path of a user goes through this function."""
    return epath.Path(path).expanduser()


def absolute(path: epath.PathLike) -> epath.Path:
    """The expanded path from the root on, local or `gs://`."""
    path = expanded(path)
    # `resolve` would take the scheme of `gs://` for a folder.
    return path if path.is_absolute() else path.resolve()


def is_local(path: epath.Path) -> bool:
    """Whether an absolute path is of this file system and not of a bucket."""
    return str(path).startswith("/")


def write_whole(path: epath.Path, content: str | bytes) -> None:
    """Writes a file so that a reader sees all of it or its previous content, after a crash too.

    An `OSError`, for example of a full disk, names the file.
    """
    content = content.encode() if isinstance(content, str) else content
    with naming(path):
        if not is_local(path):
            path.write_bytes(content)  # an object of a bucket appears whole, and renaming one is a copy
            return
        draft = path.with_name(path.name + DRAFT)
        try:
            draft.write_bytes(content)
        except OSError:
            draft.unlink(missing_ok=True)  # a full disk needs the space
            raise
        draft.replace(path)


def write_png(path: epath.Path, picture: "Image.Image") -> None:
    """Writes a picture of Pillow as PNG, whole as by `write_whole`."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_whole(path, buffer.getvalue())


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Gives errors of the system that name no file, as those of a full disk, the path."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
