"""Outputs of graphs on fixed inputs, and how far two of them are apart.

A probe is an input with trainable leaves. The leaves are random, because training moves them: on the start
values `x * v1` would be x.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evonorms_jax.search_space.graph import Graph
from evonorms_jax.search_space.reference import evaluate_reference, reference_batch_moments

#: Number of channel groups of every probe: groups of 2 channels, so that no two index sets coincide.
GROUPS = 4
#: Relative difference up to which two layers count as alike: 1 %.
ALIKE = 0.01


class Probe(NamedTuple):
    """An input `[B, H, W, C]`, and the trainable leaves `[C]`."""

    x: np.ndarray
    v0: np.ndarray
    v1: np.ndarray


def make_probes(
    seed: int,
    scales: Sequence[float],
    leaf_scale: float = 1.0,
    shape: Sequence[int] = (3, 4, 3, 8),
    spread: float = 1.0,
) -> tuple[Probe, ...]:
    """Random probes, one of each scale, with the same trainable leaves.

    The inputs are normal numbers with a mean of their own for each instance and channel, and with a scale of
    their own for each channel, log-uniform from `scale / spread` to `scale * spread`.
    """
    rng = np.random.default_rng([20200406, seed])
    v0, v1 = leaf_scale * rng.normal(size=(2, shape[-1]))
    means = (shape[0], *(1 for _ in shape[1:-1]), shape[-1])
    inputs = [scale * (rng.normal(size=shape) + rng.normal(size=means)) for scale in scales]
    channels = spread ** rng.uniform(-1, 1, size=shape[-1])
    return tuple(Probe(x * channels, v0, v1) for x in inputs)


_PROBES = make_probes(0, scales=(1.0, 1.0, 0.1, 10.0))
# The last one tells moments of one channel from moments over several, of which a `max` may hide either where
# all channels have one scale. All probes have the same leaves, as averages at inference require.
_PROBES += (_PROBES[0]._replace(x=make_probes(1, scales=(1.0,), spread=100.0)[0].x),)


def outputs(graph: Graph, probes: Sequence[Probe] = _PROBES) -> list[np.ndarray]:
    """Outputs of a graph in training on each probe, float64 `[B, H, W, C]`. They may hold inf or NaN."""
    return [evaluate_reference(graph, *probe, GROUPS) for probe in probes]


def outputs_at_inference(graph: Graph, probes: Sequence[Probe] = _PROBES) -> list[np.ndarray]:
    """Outputs at inference, where batch moments are averages over the probes.

    An average of variances differs from the variance of averaged first and second moments.
    """
    seen = [reference_batch_moments(graph, *probe, GROUPS) for probe in probes]
    memory = {index: np.mean([moments[index] for moments in seen], axis=0) for index in seen[0]}
    return [evaluate_reference(graph, *probe, GROUPS, batch_moments=memory) for probe in probes]


def same_function(first: Graph, second: Graph, tolerance: float = 1e-9) -> bool:
    """Whether two graphs have the same outputs on the probes, in training and at inference.

    A difference may be `tolerance` times the largest finite value. Values that are not finite must agree.
    """
    return all(
        _equal(a, b, tolerance)
        for of in (outputs, outputs_at_inference)
        for a, b in zip(of(first), of(second), strict=True)
    )


def _equal(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    largest = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    return np.allclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True)


# -- Likeness


@functools.lru_cache(maxsize=2**15)
def _outline(graph: Graph) -> np.ndarray | None:
    """Outputs of a canonical graph on the probes of scale 1, float32 `[2, N]`, or None if not finite."""
    values = np.stack([y.ravel() for y in outputs(graph, _PROBES[:2])])
    return values.astype(np.float32) if np.isfinite(values).all() and np.abs(values).max() < 1e15 else None


def difference(first: Graph, second: Graph) -> float:
    """Root mean square of the difference of two outputs, relative to the first output's.

    The larger one of the probes of scale 1. It is infinite if an output is not finite.
    """
    a, b = _outline(first.canonical), _outline(second.canonical)
    return float("inf") if a is None or b is None else float(_differences(a[None], b)[0])


def _differences(firsts: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`difference` of outlines `[K, 2, N]` and `[2, N]`, as `[K]`."""
    sizes = np.sqrt(np.mean(np.square(firsts), axis=2))
    gaps = np.sqrt(np.mean(np.square(firsts - second), axis=2))
    return np.max(gaps / np.maximum(sizes, 1e-30), axis=1)


def nearest(graph: Graph, known: Mapping[str, Graph]) -> tuple[str, float]:
    """The name of the known layer whose output differs least, and the `difference` from it."""
    distances = {name: difference(other, graph) for name, other in known.items()}
    name = min(distances, key=distances.__getitem__)
    return name, distances[name]


def clusters(
    graphs: Sequence[Graph], most: int | None = None, always: Collection[int] = (), tolerance: float = ALIKE
) -> list[list[int]]:
    """Groups of layers whose outputs differ by at most `tolerance` from that of the first of their group.

    Args:
      graphs: layers, best first. The first of a group is its best.
      most: number of groups that are wanted. Later layers join them or are left out.
      always: places of layers that join a group or begin one beyond that number.
      tolerance: largest `difference`.

    Returns:
      Places of the members of each group, ascending, groups in the order of their first members.
    """
    groups: list[list[int]] = []
    leaders: list[tuple[list[int], np.ndarray]] = []  # groups with the outlines of their first members
    for place, graph in enumerate(graphs):
        outline = _outline(graph.canonical)
        if outline is not None and leaders:
            near = np.flatnonzero(_differences(np.stack([o for _, o in leaders]), outline) <= tolerance)
            if len(near):
                leaders[near[0]][0].append(place)
                continue
        if most is None or len(groups) < most or place in always:
            groups.append([place])
            if outline is not None:
                leaders.append((groups[-1], outline))
    return groups
