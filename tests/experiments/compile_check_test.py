"""compile_check from the command line: errors in one line, and the answer without libtpu."""

import re
import sys

import pytest
from support import mains

from evonorms_jax.lowering.topology import get_topology

CONFIG = "experiments/configs/search_cifar10_b.py:quick"


def test_an_unknown_topology_ends_with_the_nearest_names():
    done = mains.run("compile_check", f"--config={CONFIG}", "--topology=v5e:3x3")
    assert done.returncode == 2
    assert re.fullmatch(r"error: unknown topology 'v5e:3x3': the nearest are v5e:.*\n", done.stderr)


def test_without_libtpu_the_error_has_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install '?evonorms-jax\[compile\]"):
        get_topology("v5litepod-8")
