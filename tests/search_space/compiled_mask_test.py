"""Masks and devices: what is padding leaks nowhere, and moments over devices are those of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from support.random_graphs import assert_close, distinct_graphs, perturbed, well_conditioned

from evonorms_jax.search_space import CATALOG, Graph, compile_graph, evaluate_reference

SHAPE = (8, 5, 3, 8)
GROUPS = 4

every_layer = pytest.mark.parametrize("name", CATALOG)


def ragged_mask(rng):
    """Bool `[B, H, W]`: unequal numbers of real positions, down to none at all in the last example."""
    share = np.linspace(1, 0, SHAPE[0])[:, None, None]
    return rng.random(SHAPE[:-1]) < share


def draw(rng):
    return rng.normal(0.3, 1, SHAPE).astype(np.float32)


def value_and_gradients(layer, x, mask=None):
    """Output, statistics, and gradients of a loss with respect to parameters, affine and x."""
    params, stats = layer.init(x.shape[-1])
    scale, bias = jnp.linspace(0.5, 1.5, x.shape[-1]), jnp.linspace(-1, 1, x.shape[-1])

    def loss(params, scale, bias, x):
        y, new = layer.apply(params, stats, x, train=True, mask=mask, scale=scale, bias=bias)
        return jnp.sum(jnp.square(y)), (y, new)

    gradients, (y, new) = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(params, scale, bias, x)
    return y, new, gradients


@every_layer
@pytest.mark.parametrize("train", [True, False])
def test_masked_equals_the_oracle(name, train, rng):
    x, mask = draw(rng), ragged_mask(rng)
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    params, stats = layer.init(8)
    y, after = layer.apply(params, stats, x, train=train, mask=mask)
    nodes = enumerate(CATALOG[name].nodes, start=4)
    moving = {} if train else {i: np.ones(8) for i, (op, _) in nodes if op == "std_bwh"}
    expected = evaluate_reference(CATALOG[name], x, groups=GROUPS, mask=mask, batch_moments=moving)
    assert_close(np.asarray(y)[mask], expected[mask])
    assert (np.asarray(y)[~mask] == 0).all()
    if stats and train:
        assert_close(after["var"], 0.9 + 0.1 * x[mask].astype(np.float64).var(0))


@pytest.mark.parametrize("shards", [None, 4])
def test_random_graphs_masked(shards, rng):
    """Real positions of 80 graphs against the oracle, in one piece and in shards of a named axis."""
    x, mask = draw(rng), ragged_mask(rng)
    vectors = rng.normal(0, 0.5, 8).astype(np.float32), rng.normal(1, 0.5, 8).astype(np.float32)
    graphs = distinct_graphs(seed=7, count=80)
    layers = [compile_graph(g, groups=GROUPS, axis_name=shards and "shards") for g in graphs]

    def program(x, mask):
        results = []
        for layer in layers:
            params, stats = layer.init(8)
            params = {name: jnp.asarray(vectors[name == "v1"]) for name in params}
            results.append(layer.apply(params, stats, x, train=True, mask=mask)[0])
        return results

    if shards:
        pieces = [np.reshape(a, (shards, -1, *a.shape[1:])) for a in (x, mask)]
        results = jax.jit(jax.vmap(program, axis_name="shards"))(*pieces)
    else:
        results = jax.jit(program)(x, mask)
    checked = 0
    for graph, y in zip(graphs, jax.device_get(results), strict=True):
        expected, *others = [
            evaluate_reference(graph, *arrays, groups=GROUPS, mask=mask)[mask]
            for arrays in [(x, *vectors), *perturbed((x, *vectors), seed=8)]
        ]
        if well_conditioned(expected, others):
            checked += 1
            assert_close(y.reshape(SHAPE)[mask], expected, str(graph))
    assert checked > 0.9 * len(graphs)


@every_layer
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_what_is_masked_leaks_nowhere(name, poison, rng):
    """Outputs, statistics and all gradients are the same to the last bit, whatever stands in the padding."""
    x, mask = draw(rng), ragged_mask(rng)
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    run = jax.jit(lambda x: value_and_gradients(layer, x, mask))
    clean, poisoned = (run(np.where(mask[..., None], x, np.float32(p))) for p in (7.0, poison))
    jax.tree.map(np.testing.assert_array_equal, clean, poisoned)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(poisoned))
    assert (np.asarray(poisoned[2][3])[~mask] == 0).all()


@every_layer
def test_nothing_real_at_all(name, rng):
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    x = np.full(SHAPE, np.nan, np.float32)
    y, stats, gradients = value_and_gradients(layer, x, np.zeros(SHAPE[:-1], bool))
    np.testing.assert_array_equal(y, 0)
    jax.tree.map(np.testing.assert_array_equal, stats, layer.init(8)[1])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_an_example_of_padding_does_not_spoil_the_batch(rng):
    """Its moments are those of zeros, and 1 / 0, guarded, is large enough for exp to overflow."""
    x, mask = 2 + draw(rng), np.ones(SHAPE[:-1], bool)
    mask[3] = False
    graph = Graph.parse("x * mean_bwh(exp(v1 / mean_wh(x)))")
    layer = compile_graph(graph)
    y, stats = layer.apply(*layer.init(8), x, train=True, mask=mask)
    assert_close(np.asarray(y)[mask], evaluate_reference(graph, x, mask=mask)[mask])
    assert np.isfinite(stats["mean"]).all()


@pytest.mark.parametrize("shape", [(8, 5, 3), (8, 1, 3), (5, 3), (1, 5, 1), (3,), ()], ids=str)
def test_masks_broadcast(shape, rng):
    x = draw(rng)
    mask = rng.random(shape) < 0.7 if shape else np.True_
    layer = compile_graph(CATALOG["evonorm_b0"])
    whole, _ = layer.apply(*layer.init(8), x, train=True, mask=np.broadcast_to(mask, SHAPE[:-1]))
    y, _ = layer.apply(*layer.init(8), x, train=True, mask=mask)
    np.testing.assert_array_equal(y, whole)


@every_layer
def test_a_mask_of_true_changes_nothing(name, rng):
    x = draw(rng)
    layer = compile_graph(CATALOG[name], groups=GROUPS)
    plain, masked = (value_and_gradients(layer, x, m) for m in (None, np.ones(SHAPE[:-1], bool)))
    jax.tree.map(assert_close, masked, plain)


def over_devices(how, function):
    """`function(x, mask)` of examples on 8 devices, one each; x and mask `[8, ...]`, results `[8, ...]`."""
    devices = jax.devices()
    assert len(devices) == 8
    if how == "pmap":
        mapped = jax.pmap(function, axis_name="devices")
        return lambda *a: mapped(*(v if v is None else v[:, None] for v in a))
    mesh, rows = Mesh(np.array(devices), ("devices",)), PartitionSpec("devices")

    def part(*arrays):
        return jax.tree.map(lambda leaf: leaf[None], function(*arrays))

    return jax.jit(jax.shard_map(part, mesh=mesh, in_specs=rows, out_specs=rows))


def test_without_an_axis_name_every_device_has_its_own_moments(rng):
    x = draw(rng)
    layer = compile_graph(CATALOG["evonorm_b0"])
    y, stats = over_devices("pmap", lambda x: layer.apply(*layer.init(8), x, train=True))(x)
    for i in range(8):
        assert_close(y[i], evaluate_reference(CATALOG["evonorm_b0"], x[i : i + 1]))
        assert_close(stats["var"][i], 0.9 + 0.1 * x[i].astype(np.float64).var((0, 1)))


@every_layer
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("how", ["pmap", "shard_map"])
def test_eight_devices_equal_one_with_the_whole_batch(name, how, masked, rng):
    """Outputs, statistics and gradients with `axis_name`; the masks leave one device without a position."""
    x, mask = draw(rng), ragged_mask(rng) if masked else None
    whole = value_and_gradients(compile_graph(CATALOG[name], groups=GROUPS), x, mask)
    layer = compile_graph(CATALOG[name], groups=GROUPS, axis_name="devices")
    run = over_devices(how, lambda x, mask=None: value_and_gradients(layer, x, mask))
    y, stats, (*of_parameters, of_x) = run(x, mask) if masked else run(x)
    assert_close(np.reshape(y, SHAPE), whole[0])
    assert_close(np.reshape(of_x, SHAPE), whole[2][3])
    for leaf, expected in zip(jax.tree.leaves(stats), jax.tree.leaves(whole[1]), strict=True):
        assert_close(leaf, np.broadcast_to(expected, leaf.shape))
    # `shard_map` knows that the parameters are the same on all devices and has added up their gradients.
    total = [jax.tree.map(lambda g: g[0] if how == "shard_map" else np.sum(g, 0), g) for g in of_parameters]
    jax.tree.map(assert_close, total, list(whole[2][:3]))
