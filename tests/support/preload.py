"""The imports of the process that `forks` forks children off. No backend starts and no flag is defined."""

import os
import warnings

_before = set(os.environ)

# ruff: noqa: E402, F401
import evonorms_jax.evolution.session
import evonorms_jax.lowering.check
import evonorms_jax.report.page
import evonorms_jax.study.comparison
import evonorms_jax.study.rerank
import evonorms_jax.study.table
import evonorms_jax.training.loop
import experiments.flags
import support.one_block

#: Variables that libraries set, as JAX does where there is a libtpu and no TPU.
SET_BY_IMPORTS = {name: os.environ[name] for name in os.environ.keys() - _before}

# JAX warns of every fork, and this process forks before a backend has started.
warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called")
