"""Test-wide settings: eight CPU devices, strict rank promotion, fast builds, a compilation cache."""

import gc
import os
import signal
from pathlib import Path

# Both are read when the backend starts, so they come before the first import of jax. PJRT_NPROC: with
# fewer threads than devices, collectives that nobody waits for can deadlock on a small machine.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=8 --xla_cpu_use_fusion_emitters=false"
    " --xla_cpu_parallel_codegen_split_count=1"
)
os.environ["PJRT_NPROC"] = "16"

import jax
import numpy as np
import pytest

# A shell that starts the tests in the background has them, and their children, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

CACHE = Path(__file__).parent.parent / ".cache" / "jax"


def pytest_configure(config):
    del config
    jax.config.update("jax_numpy_rank_promotion", "raise")
    # The code generator is not tested here, and most of the time goes into building programs.
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.02)
    # JAX keeps large caches. To search them for garbage as often as Python does takes a tenth of the time.
    gc.set_threshold(50_000, 20, 50)


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no process is left with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def rng():
    """A NumPy generator with a fixed seed: every test sees the same numbers in any order of tests."""
    return np.random.default_rng(0)
