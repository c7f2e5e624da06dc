"""The process of a main: its settings, and its end, with one line for an error that the user can mend."""

import contextlib
import io
import logging as std_logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import jax
from absl import logging

import evonorms_jax
from evonorms_jax.errors import UserError
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.rendezvous import joined

CACHE_VARIABLE = "EVONORMS_CACHE"
CACHE = "~/.cache/evonorms_jax/xla"
_CACHE_FROM_SECONDS = 0.3  # programs that build faster are not worth a file
_OURS = tuple(Path(path).resolve().parent for path in (evonorms_jax.__file__, __file__))
_LOST = "a step with the other hosts failed; if one was lost, start all of them again, and they resume"
_FULL = "a device is out of memory: lower batch_size or evolution.round_size, or raise accumulate"
_FINISH_SECONDS = 0.1
STOPPED, BAD_USAGE, FAILED = 130, 2, 1  # exit statuses; 130 is that of a shell after Ctrl-C


def prepare() -> None:
    """Turns the compilation cache on, and the log of the libraries down."""
    jax.config.update("jax_compilation_cache_dir", str(absolute(os.environ.get(CACHE_VARIABLE, CACHE))))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _CACHE_FROM_SECONDS)
    logging.get_absl_handler().addFilter(_worth_showing)


def _worth_showing(record: std_logging.LogRecord) -> bool:
    """Warnings of any code, and messages of ours: Orbax alone would log dozens of lines a save."""
    shown = record.levelno >= std_logging.WARNING or logging.level_debug()
    return shown or any(map(Path(record.pathname).resolve().is_relative_to, _OURS))


@contextlib.contextmanager
def errors_in_a_line() -> Iterator[None]:
    """Ends the process with one line for an error that the user can mend, and after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as stop:
        print(str(stop) or "stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except UserError as error:
        fail(error, BAD_USAGE)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename else error, FAILED)
    except (ModuleNotFoundError, FloatingPointError) as error:
        fail(error, FAILED)
    except MemoryError as error:
        fail(f"this machine has too little memory: {error}", FAILED)
    except jax.errors.JaxRuntimeError as error:
        if str(error).startswith("RESOURCE_EXHAUSTED"):
            fail(f"{_FULL}; {str(error).splitlines()[0]}", FAILED)
        if not joined():
            raise
        fail(f"{_LOST}: {error}", FAILED)


def fail(error: Exception | str, status: int) -> NoReturn:
    """Ends the process with the line `error: ...`."""
    # TensorStore's threads print tracebacks after a save that failed. They finish their line, and then print
    # into the void, so that this line begins at a margin and is the last one.
    stream, sys.stderr = sys.stderr, io.StringIO()
    time.sleep(_FINISH_SECONDS)
    stream.write(f"error: {' '.join(str(error).split())}\n")
    stream.flush()
    if jax.distributed.is_initialized():
        # An orderly end would wait minutes for hosts that are lost or wait for this one, and then abort.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)
