"""The mains as a user starts them: processes of their own, a device for each core."""

import os
import subprocess
import sys
from pathlib import Path

#: Without the optimizer of the code generator a program takes two thirds of the time to build.
FAST_BUILD = "--xla_backend_optimization_level=0"
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "experiments" / "configs"
_WITHOUT_MATPLOTLIB = """
import runpy, sys
sys.modules["matplotlib"] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def environment():
    """That of a user, but for fast builds and the compilation cache of the test suite."""
    kept = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    cache = str(ROOT / ".cache" / "jax")
    return kept | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": FAST_BUILD, "EVONORMS_CACHE": cache}


def launch(*arguments):
    """A Python with these arguments, with its output and log to be read."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(main, *arguments, matplotlib=True):
    """The process of `experiments.MAIN`."""
    name = f"experiments.{main}"
    return launch(*(("-m", name) if matplotlib else ("-c", _WITHOUT_MATPLOTLIB, name)), *arguments)


def finish(process):
    """Waits for a process, and returns how it ended."""
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(main, *arguments, **options):
    """How `experiments.MAIN` ended."""
    return finish(start(main, *arguments, **options))
