"""Children of one process that has imported the package, because each import takes a second or more."""

import atexit
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
import types
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax

ROOT = Path(__file__).parents[2]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "support.preload"])


class Child:
    """A running child, with the methods of `subprocess.Popen` that tests use. Its output and log are files.

    Args:
      target: function that the child calls, importable by name.
      *args: its arguments, which are pickled.
      environment: all variables of the child.
      folder: its working directory.
    """

    def __init__(
        self, target: Callable, *args: Any, environment: Mapping[str, str] = os.environ, folder: Path = ROOT
    ):
        streams = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, streams, ignore_errors=True)
        self._output, self._log = streams / "output", streams / "log"
        self._output.touch()
        self._log.touch()
        # The folders that the server imports from.
        with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(map(str, (ROOT / "tests", ROOT)))):
            multiprocessing.forkserver.ensure_running()
        become = [self._output, self._log], dict(environment), folder, target, args
        self._process = _CONTEXT.Process(target=_become, args=become)
        self._process.start()
        self.pid = self._process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.communicate()

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the signal that killed it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end. Returns all output and the whole log."""
        self._process.join(timeout)
        assert self.returncode is not None, f"still running after {timeout} s"
        return self.output(), self.log()

    def output(self) -> str:
        """The standard output until now."""
        return self._output.read_text()

    def log(self) -> str:
        """The standard error stream until now."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Returns once the output has this text."""
        while text not in self.output():
            assert self.returncode is None, self.log()
            time.sleep(0.01)


def python(*arguments: str) -> None:
    """Runs `-m MODULE ARGUMENT ...` or `-c CODE ARGUMENT ...` as the command `python` would."""
    option, program, *rest = arguments
    sys.argv, sys.path[0] = [option, *rest], os.getcwd()
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(program, "<string>", "exec"), vars(main))


def _become(files: list[Path], environment: dict, folder: Path, target: Callable, args: tuple) -> None:
    """Turns a fork of the server into a process with these streams, variables and working directory."""
    for stream, name in enumerate(files, start=1):
        os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # JAX reads this variable when it is imported, and the others of these tests when its backend starts.
    jax.config.update("jax_platforms", environment.get("JAX_PLATFORMS"))
    try:
        target(*args)
    finally:
        # The end of a process, in its order. Children of the server end without it.
        threading._shutdown()
        atexit._run_exitfuncs()
