"""Time and memory of every layer beside Flax's BatchNorm and a ReLU, in one run.

  python -m experiments.benchmarks.layers
  python -m experiments.benchmarks.layers --shape=8,28,28,128 --dtype=bfloat16 --layers=evonorm_b0

A step is the part of a training step that a layer adds: its output and, from a given cotangent, the gradients
of x and of the parameters. Layers take turns round by round, so that other load on the machine affects all of
them, and the median over the rounds is reported. Memory is the size of XLA's temporaries, without inputs,
output and gradients. Writes layers.json into the work directory.

Expected on two CPU cores at the default shape, in about half a minute: relative to BatchNorm and ReLU,
EvoNorm-B0 takes 1.7 to 2 times as long, S0 1.4 to 1.7 times, and S2 and FRN about as long.
"""

import functools
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags
from flax import linen as nn
from rich.table import Table

from evonorms_jax.errors import UserError
from evonorms_jax.layers import LAYERS, norm_act
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.search_space import Graph, evaluate_reference, random_graph
from experiments import flags
from experiments.benchmarks import results, turns

REFERENCE = "batch_norm+relu"
RANDOM = "random_graph"
#: All rows: the reference, the named layers, and one random graph.
NAMES = (REFERENCE, *LAYERS, RANDOM)

FLAGS = absl_flags.FLAGS


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    absl_flags.DEFINE_list("shape", "32,56,56,64", "Shape of x: batch, spatial axes, channels.")
    dtypes = ["float32", "bfloat16", "float16"]
    absl_flags.DEFINE_enum("dtype", "float32", dtypes, "Dtype of x and of the output.")
    absl_flags.DEFINE_integer("rounds", 15, "Number of timed steps of each layer.", lower_bound=1)
    absl_flags.DEFINE_list("layers", ",".join(NAMES), "Layers to measure in addition to the reference.")
    flags.define_results()


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    shape, names = parse_shape(FLAGS.shape), check_names(FLAGS.layers)
    measured = measure(names, shape, FLAGS.dtype, FLAGS.rounds)
    graph = f"{RANDOM}: {measured[RANDOM]}"
    results.publish(FLAGS.workdir, "layers.json", measured, table(measured), graph)


def parse_shape(sizes: Sequence[str]) -> list[int]:
    """The sizes as numbers. Raises `ValueError` unless they are three or more numbers above 0."""
    if len(sizes) < 3 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise UserError(f"--shape takes three or more sizes above 0, got {','.join(sizes)}")
    return [int(size) for size in sizes]


def check_names(names: Sequence[str]) -> Sequence[str]:
    """The names unchanged. Raises `ValueError` at the first unknown one."""
    for name in names:
        if name not in NAMES:
            hint = nearest(name, NAMES) or f"; known: {', '.join(NAMES)}"
            raise UserError(f"--layers: unknown layer {name!r}{hint}")
    return names


class _FlaxBatchNormRelu(nn.Module):
    """The usual pair, with Flax's own modules."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.BatchNorm(use_running_average=False, dtype=self.dtype)(x))


@functools.cache
def sample_graph(seed: int = 0) -> Graph:
    """The first random graph with three live aggregations whose output is finite and varies over space."""
    rng = np.random.default_rng(seed)
    probe = rng.normal(size=(4, 5, 5, 8))
    while True:
        graph = random_graph(rng)
        y = evaluate_reference(graph, probe)
        if str(graph).count("_") >= 3 and np.isfinite(y).all() and y.std((1, 2)).min() > 0.01:
            return graph


def make_layer(name: str, dtype: Any) -> nn.Module:
    """The module of a row."""
    if name == REFERENCE:
        return _FlaxBatchNormRelu(dtype)
    return norm_act(sample_graph() if name == RANDOM else name, use_running_average=False, dtype=dtype)()


def compile_step(layer: nn.Module, x: jax.Array, cotangent: jax.Array) -> tuple[Callable[[], Any], int]:
    """One training step of a layer, compiled, and the size of its temporaries in bytes."""
    variables = jax.jit(layer.init)(jax.random.key(0), x)

    def step(variables, x, cotangent):
        def forward(params, x):
            return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        y, backward, updates = jax.vjp(forward, variables["params"], x, has_aux=True)
        return y, backward(cotangent), updates

    compiled = jax.jit(step).lower(variables, x, cotangent).compile()
    return lambda: compiled(variables, x, cotangent), compiled.memory_analysis().temp_size_in_bytes


def measure(names: Sequence[str], shape: Sequence[int], dtype: str, rounds: int) -> dict[str, Any]:
    """Measures the reference and the layers.

    Args:
      names: rows to measure, a subset of `NAMES`. The reference is always measured.
      shape: shape of x, `[B, spatial..., C]`.
      dtype: dtype of x and of the output.
      rounds: number of timed steps of each layer.

    Returns:
      A JSON object with the machine, the settings, and one row for each layer, the reference first. Times
      are in milliseconds, memory is in bytes, and ratios are relative to the reference.
    """
    names = [REFERENCE, *(name for name in names if name != REFERENCE)]
    x, cotangent = (jax.random.normal(jax.random.key(i), shape, dtype) for i in range(2))
    steps, temporary = {}, {}
    for name in names:
        steps[name], temporary[name] = compile_step(make_layer(name, jnp.dtype(dtype)), x, cotangent)
        jax.block_until_ready(steps[name]())
    medians = {name: statistics.median(times) for name, times in turns.milliseconds(steps, rounds).items()}
    rows = [
        {
            "layer": name,
            "milliseconds": medians[name],
            "time_ratio": medians[name] / medians[REFERENCE],
            "temporary_bytes": temporary[name],
            "memory_ratio": temporary[name] / temporary[REFERENCE] if temporary[REFERENCE] else None,
        }
        for name in names
    ]
    return {
        "machine": results.machine(),
        "settings": {"shape": list(shape), "dtype": dtype, "rounds": rounds},
        RANDOM: str(sample_graph()),
        "rows": rows,
    }


def table(measured: dict[str, Any]) -> Table:
    """The rows for people."""
    title = "forward + backward, x {shape} {dtype}, median of {rounds} rounds".format(**measured["settings"])
    shown = Table(title=title)
    for column in ("layer", "ms", "x reference", "temporary MB", "x reference"):
        shown.add_column(column, justify="left" if column == "layer" else "right")
    for row in measured["rows"]:
        memory = "-" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
        time = f"{row['milliseconds']:.2f}", f"{row['time_ratio']:.2f}"
        shown.add_row(row["layer"], *time, f"{row['temporary_bytes'] / 1e6:.1f}", memory)
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, holds="workdir")
