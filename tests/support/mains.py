"""The mains with a device for each core: as a user starts them, or as forks, which start sooner."""

import os
import subprocess
import sys

from support.forks import ROOT, Child, python

#: Without optimizations, and with the emitters that need no MLIR, a program takes half the time to build.
FAST_BUILD = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
CONFIGS = ROOT / "experiments" / "configs"
WITHOUT_MATPLOTLIB = """
import runpy, sys
sys.modules["matplotlib"] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def environment():
    """That of a user, with fast builds, the compilation cache of the tests, and the folder of `support`."""
    kept = {name: value for name, value in os.environ.items() if name != "PJRT_NPROC"}
    cache = str(ROOT / ".cache" / "jax")
    ours = {"XLA_FLAGS": FAST_BUILD, "EVONORMS_CACHE": cache, "PYTHONPATH": str(ROOT / "tests")}
    return kept | {"JAX_PLATFORMS": "cpu"} | ours


def fork(*arguments):
    """A child that does as `python ARGUMENT ...`, without the time to import the package."""
    return Child(python, *arguments, environment=environment())


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


def start(main, *arguments, begin=fork):
    """The process of `experiments.MAIN`, begun by `fork` or `launch`."""
    return begin("-m", f"experiments.{main}", *arguments)


def finish(process):
    """Waits for a process, and returns how it ended."""
    out, err = process.communicate()
    return subprocess.CompletedProcess(process.pid, process.returncode, out, err)


def run(main, *arguments, begin=fork):
    """How `experiments.MAIN` ended."""
    return finish(start(main, *arguments, begin=begin))
