"""What the mains of the experiments share: flags, one-line errors, help, and the settings of a process."""

import functools
import logging as std_logging
import operator
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

import evonorms_jax
from evonorms_jax.runs.config_checks import UsageError, flat, load_config, nearest
from evonorms_jax.runs.processes import joined

CACHE_VARIABLE = "EVONORMS_CACHE"
CACHE = "~/.cache/evonorms_jax/xla"
_CACHE_FROM_SECONDS = 0.3  # programs that build faster are not worth a file
_OURS = (Path(evonorms_jax.__file__).parent, Path(__file__).parent)
_HELP = ("--help", "-help", "-h", "--helpshort")
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", tuple: "a tuple: ('a', 'b c')"}
_LOST = "a step with the other hosts failed; if one was lost, start all of them again, and they go on"
_FULL = "a device is out of memory: lower batch_size or evolution.round_size, or raise accumulate"
_STOPPED, _BAD_USAGE, _FAILED = 130, 2, 1  # exit statuses; 130 is what a shell gives after Ctrl-C


# The flags defined here are those of the main that asks for them: `--help` lists a main's own.
flags.disclaim_key_flags()


def define_config() -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Defines the required flags `--config`, with overrides `--config.KEY=VALUE`, and `--workdir`.

    Returns:
      The holders of a locked `ConfigDict` and of a string.
    """
    return define_config_alone(), define_workdir(
        "Directory of the run, local or gs://; the same command again goes on with it."
    )


def define_config_alone() -> flags.FlagHolder:
    """Defines the required flag `--config` for a main that writes no directory."""
    config = config_flags.DEFINE_config_file(
        "config", help_string="Config file; FILE:quick is a form of it that ends in about a minute."
    )
    flags.mark_flag_as_required("config")
    return config


def define_workdir(help_text: str) -> flags.FlagHolder:
    """Defines the required flag `--workdir`."""
    return flags.DEFINE_string("workdir", None, help_text, required=True)


class HostFlags(NamedTuple):
    """The flags that tell a process of several who it is; each a holder."""

    coordinator_address: flags.FlagHolder
    num_processes: flags.FlagHolder
    process_id: flags.FlagHolder
    distributed: flags.FlagHolder


def define_hosts() -> HostFlags:
    """Defines `--coordinator_address`, `--num_processes`, `--process_id` and `--distributed`."""
    return HostFlags(
        flags.DEFINE_string(
            "coordinator_address", None, "Several hosts: HOST:PORT of process 0, the same on all."
        ),
        flags.DEFINE_integer(
            "num_processes", None, "Several hosts: how many there are, the same on all.", lower_bound=1
        ),
        flags.DEFINE_integer(
            "process_id", None, "Several hosts: which one this is, from 0 on.", lower_bound=0
        ),
        flags.DEFINE_bool(
            "distributed",
            False,
            "Several hosts of a Cloud TPU, or of a Slurm or Open MPI job: finds the rest out.",
        ),
    )


def define_cpu_devices() -> flags.FlagHolder:
    """Defines `--cpu_devices`, for mains in which every device works on its own candidate."""
    return flags.DEFINE_integer(
        "cpu_devices",
        None,
        "Where JAX runs on CPU: so many devices, each with its own candidate; one for each core by default.",
        lower_bound=1,
    )


def use_cpu_devices(count: int | None) -> None:
    """Makes `count` CPU devices, or one for each core; to be called before anything touches a device."""
    jax.config.update("jax_num_cpu_devices", count or cores())


def cores() -> int:
    """CPU cores that this process may use."""
    # macOS does not say which ones a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(main: Callable[[Sequence[str]], Any], *, example: str | None = None) -> None:
    """Parses the flags, prepares the process, and calls `main(argv)`.

    What the user can mend is one line `error: ...` on the standard error stream: exit status 2 for wrong
    flags or settings, 1 for what went wrong later. A real bug shows its traceback. 130 after Ctrl-C.

    Args:
      main: what there is to do.
      example: the config file whose keys `--help` lists if the command names none; None for a main without
        `--config`.
    """

    def guarded(argv):
        _prepare_process()
        try:
            main(argv)
        except KeyboardInterrupt as stop:
            print(stop if str(stop) else "stopped", file=sys.stderr)
            sys.exit(_STOPPED)
        except (ValueError, OSError, ImportError, FloatingPointError) as error:
            if not _is_report(error):
                raise
            _fail(error, _BAD_USAGE if isinstance(error, ValueError) else _FAILED)
        except jax.errors.JaxRuntimeError as error:
            if str(error).startswith("RESOURCE_EXHAUSTED"):
                _fail(f"{_FULL}; {str(error).splitlines()[0]}", _FAILED)
            if not joined():
                raise
            _fail(f"{_LOST}: {error}", _FAILED)

    app.run(guarded, flags_parser=functools.partial(_parse, example))


def _fail(error: Exception | str, status: int) -> None:
    print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        # An orderly end would wait minutes for hosts that are lost or wait for this one, and then abort.
        sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _is_report(error: Exception) -> bool:
    """Whether a `raise` of ours made it, and not a library or a built-in function that was used wrongly."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return _is_ours(frame.filename) and (frame.line or "").startswith("raise ")


def _is_ours(path: str) -> bool:
    return any(Path(path).resolve().is_relative_to(place.resolve()) for place in _OURS)


def _prepare_process() -> None:
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(os.environ.get(CACHE_VARIABLE, CACHE)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _CACHE_FROM_SECONDS)
    logging.get_absl_handler().addFilter(_worth_showing)


def _worth_showing(record: std_logging.LogRecord) -> bool:
    """Warnings of anyone, and what our own code tells: Orbax alone would log dozens of lines a save."""
    shown = record.levelno >= std_logging.WARNING or logging.level_debug()
    return shown or _is_ours(record.pathname)


# -- The command line


def _parse(example: str | None, argv: Sequence[str]) -> list[str]:
    """Parses the flags; the positional arguments that are left are an error."""
    try:
        path = _value_of_config(argv)
        if any(argument in _HELP for argument in argv):
            print(_help(path or example))
            sys.exit(0)
        if path is None and example is not None:
            raise UsageError("the flag --config is required; --help tells more")
        defaults = ConfigDict() if example is None else load_config(path)
        _check_keys(argv, flat(defaults))
        try:
            rest = flags.FLAGS(argv)
        except flags.Error as error:
            raise UsageError(_explain(error, defaults)) from None
        if example is not None:
            _check_tuples(flat(flags.FLAGS.config), flat(defaults))
        if rest[1:]:
            raise UsageError(f"unexpected argument {rest[1]!r}: flags are --NAME=VALUE")
        return rest
    except UsageError as error:
        _fail(error, _BAD_USAGE)


def _value_of_config(argv: Sequence[str]) -> str | None:
    for place, argument in enumerate(argv):
        if match := re.fullmatch(r"--?config(=(.*))?", argument):
            return match[2] if match[1] else "".join(argv[place + 1 : place + 2])
    return None


def _check_keys(argv: Sequence[str], defaults: Mapping[str, Any]) -> None:
    for argument in argv:
        match = re.match(r"--?(no)?config\.([^=]*)", argument)
        if match and match[2] not in defaults:
            group = match[2].rpartition(".")[0] + "."
            # Within a group that exists, its name says nothing about which of its keys is meant.
            inside = [key.removeprefix(group) for key in defaults if key.startswith(group)]
            if inside:
                near = nearest(match[2].removeprefix(group), inside)
                raise UsageError(f"config.{match[2]}: {group[:-1]} has {', '.join(inside)}{near}")
            near = nearest(match[2], defaults) or "; --help lists them"
            raise UsageError(f"the config has no key {match[2]!r}{near}")


def _check_tuples(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """ml_collections checks the type of a tuple and not of what is in it."""
    for key, default in defaults.items():
        if isinstance(default, tuple) and default:
            kind = type(default[0])
            for value in config[key]:
                if not isinstance(value, kind):
                    raise UsageError(f"--config.{key} takes {kind.__name__}s, got {value!r}")
                if kind is str and "," in value:
                    raise UsageError(f"--config.{key}: repeat the flag for each of {value!r}")


def _explain(error: flags.Error, defaults: ConfigDict) -> str:
    """The flag that is wrong, and what it takes."""
    if isinstance(error, flags.UnrecognizedFlagError):
        names = [name for name in flags.FLAGS if len(name) > 1]
        return f"unknown flag --{error.flagname}{nearest(error.flagname, names)}"
    if match := re.match(r"flag --(\w+)=None: .* other than None", str(error)):
        return f"the flag --{match[1]} is required; --help tells more"
    if match := re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error)):
        *groups, leaf = match[1].split(".")
        kind = functools.reduce(operator.getitem, groups, defaults).get_type(leaf)
        return f"--config.{match[1]} takes {_KINDS.get(kind, kind.__name__)}, got {match[2]!r}"
    return str(error)


def _help(path: str | None) -> str:
    main = sys.modules["__main__"]
    lines = [(main.__doc__ or "").strip(), "", "Flags:"]
    lines += [f"  --{flag.name}: {flag.help}" for flag in flags.FLAGS.get_key_flags_for_module(main)]
    if path is None:
        return "\n".join(lines)
    lines += ["", f"Keys of {path}, set by --config.KEY=VALUE after --config=FILE, with its values:"]
    defaults = flat(load_config(path))
    width = max(map(len, defaults))
    lines += [f"  {key:<{width}}  {value!r}" for key, value in defaults.items()]
    return "\n".join(lines)
