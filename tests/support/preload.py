"""The imports of the process that `forks` forks children off. No backend starts and no flag is defined."""

# ruff: noqa: F401
import evonorms_jax.evolution.session
import evonorms_jax.lowering.check
import evonorms_jax.report.page
import evonorms_jax.study.comparison
import evonorms_jax.study.rerank
import evonorms_jax.study.table
import evonorms_jax.training.loop
import experiments.flags
import support.one_block
