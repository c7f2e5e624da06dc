"""The table of index sets: one entry serves ops, compiled graphs, the universal program and the reference."""

import jax.numpy as jnp
import numpy as np
import pytest

from evonorms_jax.search_space import OPS, Graph, compile_graph, encoding, evaluate_reference, moments
from evonorms_jax.search_space.encoding import instruction_set
from evonorms_jax.search_space.primitives import EPSILON, aggregation
from evonorms_jax.search_space.universal import apply_encoded, initial_statistics

SHAPE = (3, 4, 2, 6)
GROUPS = 3

NEW_SETS = {
    "c": (moments.INDEX_SETS["c"], (3,)),  # it is there, but no set of the paper
    "c/g": (moments.IndexSet(batch=False, space=False, channels="group", latex="c/g"), (3,)),
    "bwhc": (moments.IndexSet(batch=True, space=True, channels="all", latex="b,w,h,c"), (0, 1, 2, 3)),
}


@pytest.fixture(params=NEW_SETS)
def new_set(request, monkeypatch):
    """Registers an index set for a test; its name, and the axes that NumPy averages over."""
    entry, axes = NEW_SETS[request.param]
    monkeypatch.setitem(moments.INDEX_SETS, request.param, entry)
    for kind in ("mean", "rms", "std"):
        op = aggregation(kind, request.param)
        monkeypatch.setitem(OPS, op.name, op)
    return request.param, axes


def by_hand(kind, x, name, axes):
    """The value of an aggregation by NumPy, `[3, 4, 2, 6]`."""
    split = x.reshape(*x.shape[:-1], GROUPS, -1) if name == "c/g" else x
    axes = (4,) if name == "c/g" else axes
    moment = {
        "mean": lambda: split.mean(axes, keepdims=True),
        "rms": lambda: np.sqrt((split**2).mean(axes, keepdims=True) + EPSILON),
        "std": lambda: np.sqrt(split.var(axes, keepdims=True) + EPSILON),
    }[kind]()
    return np.broadcast_to(moment, split.shape).reshape(x.shape)


@pytest.mark.parametrize("kind", ["mean", "rms", "std"])
def test_a_new_index_set_is_one_entry(new_set, kind, rng):
    name, axes = new_set
    graph = Graph([(f"{kind}_{name}", (0,))])
    assert Graph.parse(str(graph)).canonical == graph.canonical
    x = rng.normal(0.5, 2, SHAPE).astype(np.float32)
    expected = by_hand(kind, x.astype(np.float64), name, axes)
    np.testing.assert_allclose(evaluate_reference(graph, x, groups=GROUPS), expected, rtol=1e-12)

    layer = compile_graph(graph, groups=GROUPS)
    y, _ = layer.apply(*layer.init(6), x, train=True)
    np.testing.assert_allclose(y, expected, rtol=1e-5)

    instructions = instruction_set([f"{kind}_{name}"])
    encoded = encoding.encode(graph, instructions)
    stats = initial_statistics(encoded, 6)
    settings = {"groups": GROUPS, "instructions": instructions}
    y, stats = apply_encoded(encoded, x, jnp.zeros(6), jnp.ones(6), stats, train=True, **settings)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    y, _ = apply_encoded(encoded, 3 * x, jnp.zeros(6), jnp.ones(6), stats, train=False, **settings)
    if moments.INDEX_SETS[name].batch:  # inference remembers the moment of the training step
        start = float(kind != "mean")
        moment = by_hand(kind, x.astype(np.float64), name, axes)
        raw = moment if kind == "mean" else moment**2 - EPSILON
        remembered = 0.9 * start + 0.1 * raw
        expected = remembered if kind == "mean" else np.sqrt(remembered + EPSILON)
    else:
        expected = by_hand(kind, 3 * x.astype(np.float64), name, axes)
    np.testing.assert_allclose(y, expected, rtol=1e-5)


@pytest.mark.parametrize("method", ["mean", "mean_square", "variance"])
def test_an_unknown_index_set_raises(method):
    with pytest.raises(ValueError, match=r"^unknown index set 'hw'; known: bwh, whc, wh, whc/g, c$"):
        getattr(moments.Moments(jnp.ones(SHAPE)), method)("hw")
    with pytest.raises(ValueError, match=r"^unknown index set 'hw'; known: bwh"):
        aggregation("mean", "hw")


def test_an_op_of_an_unknown_index_set_raises_everywhere(monkeypatch):
    op = aggregation("std", "wh")._replace(name="std_hw", index_set="hw")
    monkeypatch.setitem(OPS, "std_hw", op)
    graph = Graph([("std_hw", (0,))])
    x = np.ones(SHAPE, np.float32)
    for run in (
        lambda: compile_graph(graph).apply({}, {}, x, train=True),
        lambda: encoding.encode(graph),
        lambda: evaluate_reference(graph, x),
    ):
        with pytest.raises(ValueError, match=r"^unknown index set 'hw'"):
            run()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (moments.IndexSet(True, False, "one", "b"), "averages over the batch and so must average over space"),
        (moments.IndexSet(False, True, "each", "w,h"), "channels must be one, group or all, got 'each'"),
    ],
)
def test_an_entry_that_no_moment_can_have_is_refused(entry, message, monkeypatch):
    monkeypatch.setitem(moments.INDEX_SETS, "odd", entry)
    with pytest.raises(ValueError, match=message):
        aggregation("mean", "odd")
