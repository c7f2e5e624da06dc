"""The entry that all mains share: it parses the flags and calls the main."""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags

from evonorms_jax.errors import UserError
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.runs.workdir import hold_folder
from experiments import config_flag, process

_HELP = ("--help", "-help", "-h", "--helpshort")
# The flags defined here are those of the main that asks for them: `--help` lists a main's own.
flags.disclaim_key_flags()
_required: list[str] = []


def define_config() -> tuple[flags.FlagHolder, flags.FlagHolder]:
    """Defines the required flags `--config`, with overrides `--config.KEY=VALUE`, and `--workdir`.

    Returns:
      The holders of a locked `ConfigDict` and of a string.
    """
    text = "Directory of the run, local or gs://. The same command again resumes it."
    return define_config_alone(), define_required("workdir", text)


def define_config_alone() -> flags.FlagHolder:
    """Defines `--config` and its overrides, for a main without a work directory."""
    return flags.DEFINE_string(
        "config", None, "Config file. FILE:quick is a form that ends in about a minute."
    )


def define_required(name: str, help_text: str) -> flags.FlagHolder:
    """Defines a flag with a text that must be given."""
    _required.append(name)
    return flags.DEFINE_string(name, None, help_text)


def define_hosts() -> tuple[flags.FlagHolder, ...]:
    """Defines and returns `--coordinator_address`, `--num_processes`, `--process_id` and `--distributed`."""
    several = "Several hosts:"
    found = f"{several} finds the other three on a Cloud TPU, or in a Slurm or Open MPI job."
    return (
        flags.DEFINE_string(
            "coordinator_address", None, f"{several} HOST:PORT of process 0, the same on all."
        ),
        flags.DEFINE_integer("num_processes", None, f"{several} their number, the same on all.", 1),
        flags.DEFINE_integer("process_id", None, f"{several} number of this one, from 0.", 0),
        flags.DEFINE_bool("distributed", False, found),
    )


def define_checkpoint(default: str) -> flags.FlagHolder:
    """Defines `--checkpoint`, "newest" or "best"."""
    text = "Checkpoint to read; best is by the validation part."
    return flags.DEFINE_enum("checkpoint", default, ["newest", "best"], text)


def define_inception() -> flags.FlagHolder:
    """Defines `--inception`, for mains that score generators."""
    text = "File with the weights of the Inception network of 2015: scores are then FID and Inception score."
    return flags.DEFINE_string("inception", None, text)


def define_cpu_devices() -> flags.FlagHolder:
    """Defines `--cpu_devices`, for mains in which every device works on its own candidate."""
    text = "Number of CPU devices, each with its own candidate; by default one for each core."
    return flags.DEFINE_integer("cpu_devices", None, text, lower_bound=1)


def define_counts(*counts: tuple[str, int, str]) -> None:
    """Defines flags for numbers from 1 on, each by its name, default and help text."""
    for name, default, text in counts:
        flags.DEFINE_integer(name, default, text, lower_bound=1)


def define_results() -> flags.FlagHolder:
    """Defines `--workdir` for the results of a benchmark without a config."""
    return flags.DEFINE_string("workdir", "runs/benchmarks", "Directory for the results.")


def whole_numbers(name: str, values: Sequence[str]) -> list[int]:
    """The values of a list flag as numbers. Raises `UserError` unless all are above 0."""
    for value in values:
        if not value.isdecimal() or not int(value):
            raise UserError(f"--{name} takes whole numbers above 0, got {value!r}")
    return [int(value) for value in values]


def use_cpu_devices(count: int | None) -> None:
    """Makes `count` CPU devices, or one for each core. To be called before anything touches a device."""
    jax.config.update("jax_num_cpu_devices", count or cores())


def cores() -> int:
    """CPU cores that this process may use."""
    # macOS does not tell which ones a process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    main: Callable[[Sequence[str]], Any],
    *,
    example: str | None = None,
    holds: str | None = None,
    positional: bool = False,
) -> None:
    """Parses the flags, prepares the process, and calls `main(argv)`.

    An error that the user can mend is one line `error: ...` on the standard error stream: exit status 2 for
    wrong flags or settings, 1 for errors of files, data, libraries, memory and numbers. A bug shows its
    traceback. The status is 130 after Ctrl-C.

    Args:
      main: the program.
      example: config file whose keys `--help` lists if the command names no other. A main without it has no
        `--config`.
      holds: name of the flag of a directory that no other process may write to while this main runs.
      positional: whether the main takes arguments that are not flags. Its `--config` then has the example as
        its default.
    """

    def guarded(argv):
        process.prepare()
        with (
            process.errors_in_a_line(),
            hold_folder(flags.FLAGS[holds].value) if holds else contextlib.nullcontext(),
        ):
            main(argv)

    def parse(argv):
        with process.errors_in_a_line():
            return _parse(example, argv, positional)

    app.run(guarded, flags_parser=parse)


def _parse(example: str | None, argv: Sequence[str], positional: bool) -> list[str]:
    """Parses the flags, and refuses other arguments unless they are wanted."""
    path = config_flag.file_of(argv) or (example if positional else None)
    if any(argument in _HELP for argument in argv):
        print(_help(path or example))
        sys.exit(0)
    if example is not None:
        if path is None:
            raise UserError("the flag --config is required; --help tells more")
        config, argv = config_flag.parse(path, argv)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        known = [name for name in flags.FLAGS if len(name) > 1]
        raise UserError(f"unknown flag --{error.flagname}{nearest(error.flagname, known)}") from None
    except flags.Error as error:
        raise UserError(str(error)) from None
    if example is not None:
        flags.FLAGS["config"].value = config
    for name in _required:
        if not flags.FLAGS[name].value:
            raise UserError(f"the flag --{name} is required; --help tells more")
    if rest[1:] and not positional:
        raise UserError(f"unexpected argument {rest[1]!r}: flags are --NAME=VALUE")
    return rest


def _help(path: str | None) -> str:
    main = sys.modules["__main__"]
    lines = [(main.__doc__ or "").strip(), "", "Flags:"]
    lines += [f"  --{flag.name}: {flag.help}" for flag in flags.FLAGS.get_key_flags_for_module(main)]
    return "\n".join(lines if path is None else [*lines, "", *config_flag.describe_keys(path)])
