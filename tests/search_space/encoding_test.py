"""The tapes of an encoded graph: whatever an edge reads in the buffer is still there."""

import numpy as np
import pytest
from support.random_graphs import distinct_graphs

from evonorms_jax.search_space import BASELINES, CATALOG, OPS
from evonorms_jax.search_space.encoding import CAPACITY, PAPER, SLOTS, encode
from evonorms_jax.search_space.primitives import INPUT, LEAVES, V0, V1, ZERO

GRAPHS = [*(CATALOG | BASELINES).values(), *distinct_graphs(seed=3, count=500)]


@pytest.mark.parametrize("number", range(0, len(GRAPHS), 100))
def test_the_backward_tape_overwrites_nothing_that_is_needed(number):
    for graph in GRAPHS[number : number + 100]:
        encoded, nodes = encode(graph), graph.canonical.nodes
        output = len(LEAVES) - 1 + len(nodes)
        held = {slot: ("value", slot) for slot in range(output + 1)}
        held[SLOTS - 1] = ("cotangent", output)
        walked = []
        for code, index, own, place, first in encoded.edges[: encoded.num_edges]:
            op, k = PAPER.edges[code]
            name, sources = nodes[index]
            assert op == (OPS[name].kind or name)
            assert held[own] == ("cotangent", len(LEAVES) + index)
            assert all(held[source] == ("value", source) for source in sources)
            if first:
                held[place] = ("cotangent", sources[k])
            assert held[place] == ("cotangent", sources[k])
            walked.append((index, k))
        assert len(set(walked)) == len(walked)
        for leaf, slot in zip((INPUT, V0, V1), encoded.received, strict=True):
            reached = any(nodes[index].inputs[k] == leaf for index, k in walked)
            assert held[slot] == ("cotangent", leaf) if reached else slot == -1


def test_every_input_that_varies_is_on_the_backward_tape():
    for graph in GRAPHS:
        nodes = graph.canonical.nodes
        varies = [leaf != ZERO for leaf in range(len(LEAVES))]
        for node in nodes:
            varies.append(any(varies[source] for source in node.inputs))
        expected = sum(varies[source] for node in nodes for source in node.inputs)
        assert encode(graph).num_edges == expected <= 2 * CAPACITY


def test_all_graphs_give_arrays_of_the_same_shape():
    shapes = {tuple((np.shape(leaf), np.asarray(leaf).dtype) for leaf in encode(graph)) for graph in GRAPHS}
    assert len(shapes) == 1
