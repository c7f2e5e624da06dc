"""The work directory of a run, which belongs to one config for ever and to one process at a time."""

import contextlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from absl import logging
from etils import epath

import evonorms_jax
from evonorms_jax.errors import UserError
from evonorms_jax.runs.config_checks import flat
from evonorms_jax.runs.files import DRAFT, absolute, is_local, write_whole
from evonorms_jax.runs.lock import LOCK, hold

CONFIG = "config.json"


@contextlib.contextmanager
def claim_workdir(
    path: epath.PathLike, config: Mapping[str, Any], may_differ: Collection[str] = (), *, alone: bool = True
) -> Iterator[epath.Path]:
    """Holds the work directory of one config for this process.

    The first time, the config and the version of this package are written to `config.json` in it. Later only
    the same config is accepted: a run that resumes with other settings is neither run.

    Args:
      path: directory, local or `gs://`, created with its parents if need be.
      config: content for JSON, where tuples count as lists.
      may_differ: dotted keys that may have changed since. The file stays as it is.
      alone: whether other processes are kept out. A main that only writes whole files needs no lock.

    Yields:
      The absolute path.

    Raises:
      ValueError: if the directory belongs to another config (the message names the keys that differ), holds
        other things, or its `config.json` is damaged.
      WorkdirInUseError: if another process holds it.
      OSError: if it cannot be made or written, for example on a full disk.
      ModuleNotFoundError: if it is in a bucket and the library for buckets is not installed.
    """
    workdir = _create(path)
    # Through JSON and back, as it will be read: tuples become lists.
    config = json.loads(json.dumps(config))
    _belongs(workdir, config, may_differ)
    with hold(workdir) if alone else contextlib.nullcontext():
        if not _belongs(workdir, config, may_differ):
            content = {"version": evonorms_jax.__version__, "config": config}
            write_whole(workdir / CONFIG, json.dumps(content, indent=1) + "\n")
        yield workdir


@contextlib.contextmanager
def hold_folder(path: epath.PathLike) -> Iterator[epath.Path]:
    """Makes a directory, if need be, and holds it for this process. Errors are those of `claim_workdir`.

    One that is made here and gets no file is removed again: a mistyped setting leaves no trace.
    """
    new = not absolute(path).exists()
    workdir = _create(path)
    try:
        with hold(workdir):
            yield workdir
    finally:
        if new and is_local(workdir):
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(workdir)  # epath would raise ValueError


def check_config(workdir: epath.PathLike, config: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless the directory, which may be in use, is free or belongs to this config."""
    _belongs(absolute(workdir), json.loads(json.dumps(config)), ())


def _belongs(workdir: epath.Path, config: dict[str, Any], may_differ: Collection[str]) -> bool:
    """Whether the directory belongs to the config already. It may still be empty."""
    if (workdir / CONFIG).exists():
        _check_same(workdir, config, may_differ)
        return True
    # In a bucket a directory exists once there is something in it.
    names = sorted(entry.name for entry in workdir.iterdir()) if workdir.exists() else []
    foreign = [name for name in names if name != CONFIG + DRAFT and not name.startswith(LOCK)]
    if foreign:
        raise UserError(
            f"{workdir} is not empty and no work directory, it has {foreign[0]!r} and no {CONFIG}: "
            "choose another one"
        )
    return False


def _create(path: epath.PathLike) -> epath.Path:
    workdir = absolute(path)
    try:
        with _opening(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"the work directory {workdir} cannot be made: a file is in the way") from None
    return workdir


@contextlib.contextmanager
def _opening(path: epath.Path) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        hint = "pip install 'evonorms-jax[gcs]' brings it"
        raise ModuleNotFoundError(f"{path} cannot be opened: {error}; {hint}") from None


def read_config(path: epath.PathLike) -> dict[str, Any]:
    """The config that a work directory belongs to.

    Raises:
      ValueError: if it is not a work directory, or its `config.json` is damaged.
      ModuleNotFoundError: if it is in a bucket and the library for buckets is not installed.
    """
    path = absolute(path)
    with _opening(path):
        if not (path / CONFIG).exists():
            raise UserError(f"{path} is no work directory: it has no {CONFIG}")
    return _read(path)["config"]


def _read(workdir: epath.Path) -> dict[str, Any]:
    path = workdir / CONFIG
    try:
        content = json.loads(path.read_text())
        return {"config": dict(content["config"]), "version": str(content["version"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged: move {workdir} away, or choose another one") from None


def _check_same(workdir: epath.Path, config: dict[str, Any], may_differ: Collection[str]) -> None:
    content = _read(workdir)
    written, version = flat(content["config"]), content["version"]
    asked, absent = flat(config), "(none)"
    differences = [
        f"{key} is {written.get(key, absent)!r} there and {asked.get(key, absent)!r} now"
        for key in sorted(written.keys() | asked.keys())
        if key not in may_differ and written.get(key, absent) != asked.get(key, absent)
    ]
    if differences:
        raise UserError(f"{workdir} belongs to another config: {'; '.join(differences)}")
    if version != evonorms_jax.__version__:
        now = evonorms_jax.__version__
        logging.warning("%s was begun with version %s of evonorms_jax, this is %s", workdir, version, now)
