"""Time and memory of every layer beside Flax's BatchNorm and a ReLU, in one run.

    python -m experiments.benchmarks.layers
    python -m experiments.benchmarks.layers --shape=8,28,28,128 --dtype=bfloat16 --layers=evonorm_b0

One step is what a layer adds to a training step: the output, and from a given cotangent the gradients of x
and of the parameters. Layers take turns, round by round, so that whatever else the machine does hits all of
them; the median over the rounds is reported. Memory is what XLA sets aside for temporaries; inputs, output
and gradients are not in it.

Expected on two CPU cores at the default shape, in about half a minute: EvoNorm-B0 at @@B0 and S0 at @@S0 of
the time of BatchNorm and ReLU.
"""

import datetime
import difflib
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import linen as nn

from evonorms_jax.layers import LAYERS, norm_act
from evonorms_jax.search_space import Graph, evaluate_reference, random_graph

REFERENCE = "batch_norm+relu"
RANDOM = "random_graph"
NAMES = (REFERENCE, *LAYERS, RANDOM)

_SHAPE = flags.DEFINE_list("shape", "32,56,56,64", "Shape of x: batch, spatial axes, channels.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Dtype of x and output.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Steps timed of each layer.", lower_bound=1)
_LAYERS = flags.DEFINE_list("layers", ",".join(NAMES), "Layers to measure; the reference is always there.")
_JSON = flags.DEFINE_string("json", "runs/benchmarks/layers_benchmark.json", "Where the figures are written.")


@flags.validator("shape")
def check_shape(shape: Sequence[str]) -> bool:
    if len(shape) < 3 or not all(size.isdecimal() and int(size) > 0 for size in shape):
        raise flags.ValidationError(f"expected three or more sizes above 0, got {','.join(shape)}")
    return True


@flags.validator("layers")
def check_layers(names: Sequence[str]) -> bool:
    for name in names:
        if name not in NAMES:
            near = difflib.get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(NAMES)}"
            raise flags.ValidationError(f"unknown layer {name!r}; {hint}")
    return True


class _FlaxBatchNormRelu(nn.Module):
    """What stands in a network today, in Flax's own words."""

    dtype: Any

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.BatchNorm(use_running_average=False, dtype=self.dtype)(x))


@functools.cache
def sample_graph(seed: int = 0) -> Graph:
    """The first random graph with two live aggregations whose output is finite and varies over space."""
    rng = np.random.default_rng(seed)
    probe = rng.normal(size=(4, 5, 5, 8))
    while True:
        graph = random_graph(rng)
        y = evaluate_reference(graph, probe)
        if str(graph).count("_") >= 2 and np.isfinite(y).all() and y.std((1, 2)).min() > 0.01:
            return graph


def make_layer(name: str, dtype: Any) -> nn.Module:
    """The module of a row."""
    if name == REFERENCE:
        return _FlaxBatchNormRelu(dtype)
    return norm_act(sample_graph() if name == RANDOM else name, use_running_average=False, dtype=dtype)()


def compile_step(layer: nn.Module, x: jax.Array, cotangent: jax.Array) -> tuple[Callable[[], Any], int]:
    """One training step of a layer, compiled, and the bytes of its temporaries."""
    variables = layer.init(jax.random.key(0), x)

    def step(variables, x, cotangent):
        def forward(params, x):
            return layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])

        y, backward, updates = jax.vjp(forward, variables["params"], x, has_aux=True)
        return y, backward(cotangent), updates

    compiled = jax.jit(step).lower(variables, x, cotangent).compile()
    return lambda: compiled(variables, x, cotangent), compiled.memory_analysis().temp_size_in_bytes


def measure(names: Sequence[str], shape: Sequence[int], dtype: str, rounds: int) -> dict[str, Any]:
    """Measures the layers and the reference; times in milliseconds, memory in bytes, ratios to the reference.

    Args:
      names: of `NAMES`.
      shape: of x, `[B, spatial..., C]`.
      dtype: of x and of the output.
      rounds: steps timed of each layer.

    Returns:
      A JSON object with a header and one row per layer, the reference first.
    """
    names = [REFERENCE, *(name for name in names if name != REFERENCE)]
    x, cotangent = (jax.random.normal(jax.random.key(i), shape, dtype) for i in range(2))
    steps, temporary = {}, {}
    for name in names:
        steps[name], temporary[name] = compile_step(make_layer(name, jnp.dtype(dtype)), x, cotangent)
        jax.block_until_ready(steps[name]())
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step())
            times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
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
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "shape": list(shape),
        "dtype": dtype,
        "rounds": rounds,
        RANDOM: str(sample_graph()),
        "rows": rows,
    }


def table(figures: dict[str, Any]) -> str:
    """The figures as aligned text."""
    lines = [
        f"{figures['device']}, JAX {figures['jax']}, {figures['date']}",
        f"forward + backward, x {figures['shape']} {figures['dtype']}, median of {figures['rounds']} rounds",
        "",
        f"{'layer':<16} {'ms':>9} {'x reference':>12} {'temporary MB':>13} {'x reference':>12}",
    ]
    for row in figures["rows"]:
        memory = "-" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
        lines.append(
            f"{row['layer']:<16} {row['milliseconds']:>9.2f} {row['time_ratio']:>12.2f}"
            f" {row['temporary_bytes'] / 1e6:>13.1f} {memory:>12}"
        )
    return "\n".join([*lines, "", f"{RANDOM}: {figures[RANDOM]}"])


def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        sys.exit(f"unexpected argument {argv[1]!r}: flags start with --")
    path = Path(_JSON.value)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        sys.exit(f"cannot write --json={path}: {error.strerror}")
    shape = [int(size) for size in _SHAPE.value]
    figures = measure(_LAYERS.value, shape, _DTYPE.value, _ROUNDS.value)
    print(table(figures))
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    app.run(main)
