"""Measures layers beside Flax's BatchNorm and a ReLU: the figures of `layers.py`."""

import datetime
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from evonorms_jax.layers import LAYERS, norm_act
from evonorms_jax.search_space import Graph, evaluate_reference, random_graph

REFERENCE = "batch_norm+relu"
RANDOM = "random_graph"
#: Every row: the reference, the named layers, and one random graph.
NAMES = (REFERENCE, *LAYERS, RANDOM)


class _FlaxBatchNormRelu(nn.Module):
    """What stands in a network today, in Flax's own words."""

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
    """One training step of a layer, compiled, and the bytes of its temporaries."""
    variables = jax.jit(layer.init)(jax.random.key(0), x)

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
