"""Random graphs and mutations: the distributions of the paper, by counts."""

from collections import Counter

import numpy as np
import pytest

from evonorms_jax.search_space import MUTATIONS, OP_NAMES, OPS, Graph, mutate, mutate_gene, random_graph
from evonorms_jax.search_space.sampling import NUM_NODES, check_space

# Chi^2 may exceed its mean by so many of its standard deviations: one sound seed in thousands does.
STANDARD_DEVIATIONS = 5


def assert_uniform(counts: Counter, outcomes) -> None:
    """Chi-squared of the counts against equal chances, with no outcome outside `outcomes`."""
    outcomes = list(outcomes)
    assert set(counts) <= set(outcomes)
    expected = counts.total() / len(outcomes)
    assert expected > 30
    chi2 = sum((counts[outcome] - expected) ** 2 / expected for outcome in outcomes)
    freedom = len(outcomes) - 1
    assert chi2 < freedom + STANDARD_DEVIATIONS * np.sqrt(2 * freedom)


def test_random_graph_draws_ops_and_inputs_uniformly(rng):
    graphs = [random_graph(rng) for _ in range(4000)]
    assert {len(graph.nodes) for graph in graphs} == {NUM_NODES} == {10}
    for position in range(NUM_NODES):
        nodes = [graph.nodes[position] for graph in graphs]
        assert_uniform(Counter(op for op, _ in nodes), OP_NAMES)
        earlier = range(4 + position)
        assert_uniform(Counter(i for _, inputs in nodes for i in inputs), earlier)
    # With replacement, and the two inputs of a node independently: all pairs of leaves alike.
    first = (graph.nodes[0].inputs for graph in graphs)
    pairs = Counter(inputs for inputs in first if len(inputs) == 2)
    assert_uniform(pairs, [(i, j) for i in range(4) for j in range(4)])


def test_what_a_random_graph_is_like(rng):
    """Whether x reaches the output, by walking up from the output through nodes drawn without a Graph.

    With the ops of the paper 69 % of random graphs do not use x (our count over 4,000).
    """
    count = 2000
    arities = [OPS[name].arity for name in OP_NAMES]

    def uses_x():
        needed = {3 + NUM_NODES}
        for index in range(3 + NUM_NODES, 3, -1):
            if index in needed:
                needed.update(rng.integers(index, size=arities[rng.integers(len(arities))]).tolist())
        return 0 in needed

    ours = np.mean([random_graph(rng).uses_input for _ in range(count)])
    drawn = np.mean([uses_x() for _ in range(count)])
    deviation = np.sqrt(2 * drawn * (1 - drawn) / count)
    assert abs(ours - drawn) < STANDARD_DEVIATIONS * deviation


def test_mutation_draws_one_node_anew(rng):
    graph = random_graph(rng)
    children = [mutate(rng, graph) for _ in range(6000)]
    changed = []
    for child in children:
        different = [i for i in range(NUM_NODES) if child.nodes[i] != graph.nodes[i]]
        assert len(child.nodes) == NUM_NODES
        assert len(different) <= 1  # and so its users keep their inputs
        changed += different
    # A draw repeats the old node with a chance of 1/ops times 1/earlier for each input.
    same = [1 / len(OP_NAMES) / (4 + i) ** OPS[graph.nodes[i].op].arity for i in range(NUM_NODES)]
    assert abs(len(changed) / len(children) - (1 - np.mean(same))) < 0.005
    counts = Counter(changed)
    expected = np.array([len(children) / NUM_NODES * (1 - p) for p in same])
    observed = np.array([counts[i] for i in range(NUM_NODES)])
    assert ((observed - expected) ** 2 / expected).sum() < 9 + STANDARD_DEVIATIONS * np.sqrt(18)


def test_mutation_draws_ops_and_inputs_uniformly(rng):
    """The new node of a one-node graph, so that every draw is seen, also one that changes nothing."""
    graph = Graph([("exp", (0,))])
    nodes = [mutate(rng, graph).nodes[0] for _ in range(2000)]
    assert_uniform(Counter(op for op, _ in nodes), OP_NAMES)
    assert_uniform(Counter(i for _, inputs in nodes for i in inputs), range(4))
    # The last of ten nodes may use all thirteen earlier ones.
    graph = Graph([("exp", (0,))] * NUM_NODES)
    last = [mutate(rng, graph).nodes[-1] for _ in range(5000)]
    changed = [node for node in last if node.op != "exp"]
    assert_uniform(Counter(i for _, inputs in changed for i in inputs), range(13))


def test_a_mutated_gene_is_an_op_or_one_input(rng):
    """Of the last of ten binary nodes: a third of the draws are ops, the others are one input each."""
    graph = Graph([("add", (0, 1))] * (NUM_NODES - 1) + [("div", (2, 3))])
    drawn = Counter()
    for _ in range(6000):
        node = mutate_gene(rng, graph).nodes[-1]
        if node.op != "div":
            drawn["op"] += 1
            assert node.inputs == (2, 3)[: OPS[node.op].arity]
        elif node.inputs != (2, 3):
            drawn["first" if node.inputs[0] != 2 else "second"] += 1
            assert node.inputs[0] == 2 or node.inputs[1] == 3
    chances = {"op": 23 / 24, "first": 12 / 13, "second": 12 / 13}
    expected = {gene: 6000 / NUM_NODES / 3 * chance for gene, chance in chances.items()}
    chi2 = sum((drawn[gene] - expected[gene]) ** 2 / expected[gene] for gene in expected)
    assert set(drawn) == set(expected)
    assert chi2 < 3 + STANDARD_DEVIATIONS * np.sqrt(6)


def test_a_mutated_op_draws_the_inputs_that_it_lacks(rng):
    graph = Graph([("exp", (2,))])
    nodes = [mutate_gene(rng, graph).nodes[0] for _ in range(4000)]
    binary = [node.inputs for node in nodes if OPS[node.op].arity == 2]
    assert {first for first, _ in binary} == {2}
    assert_uniform(Counter(second for _, second in binary), range(4))
    assert_uniform(
        Counter(node.inputs[0] for node in nodes if node.op == "exp" and node.inputs[0] != 2), (0, 1, 3)
    )


def test_one_gene_leads_from_an_instance_norm_to_one_with_a_nonlinearity(rng):
    nodes = [("abs", (0,)), ("std_wh", (0,)), ("div", (0, 5))]
    children = {str(mutate_gene(rng, Graph(nodes))) for _ in range(500)}
    assert "abs(x) / std_wh(x)" in children
    assert "abs(x) / std_wh(x)" not in {str(mutate(rng, Graph(nodes))) for _ in range(500)}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_can_kill_and_revive(mutation, rng):
    graph = Graph.parse("x / std_bwh(x)", NUM_NODES)
    sizes = {len(MUTATIONS[mutation](rng, graph).live_nodes) for _ in range(300)}
    assert min(sizes) < len(graph.live_nodes) < max(sizes)


def test_only_allowed_ops_are_drawn(rng):
    allowed = ("add", "std_wh", "exp")
    graphs = [random_graph(rng, ops=allowed) for _ in range(200)]
    assert_uniform(Counter(op for graph in graphs for op, _ in graph.nodes), allowed)
    # A parent may hold other ops; the drawn node does not.
    parent = Graph([("log", (0,))] * NUM_NODES)
    drawn = [node.op for _ in range(200) for node in mutate(rng, parent, allowed).nodes if node.op != "log"]
    assert len(drawn) == 200
    assert_uniform(Counter(drawn), allowed)


def test_number_of_nodes(rng):
    assert len(random_graph(rng, 1).nodes) == 1
    assert len(random_graph(rng, 30).nodes) == 30


def test_the_generator_alone_decides():
    def draw(seed):
        rng = np.random.default_rng(seed)
        graph = random_graph(rng)
        return graph, mutate(rng, graph), mutate_gene(rng, graph)

    assert draw(3) == draw(3)
    assert len({*draw(3), *draw(4)}) == 6


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_nodes": 0}, "num_nodes must be a whole number from 1 on, got 0"),
        ({"num_nodes": -3}, "num_nodes must be a whole number from 1 on, got -3"),
        ({"num_nodes": 2.0}, r"num_nodes must be a whole number from 1 on, got 2\.0"),
        ({"num_nodes": True}, "num_nodes must be a whole number from 1 on, got True"),
        ({"num_nodes": None}, "num_nodes must be a whole number from 1 on, got None"),
        ({"ops": ()}, r"ops must name at least one op, as a tuple of names, got \(\)"),
        ({"ops": None}, "ops must name at least one op, as a tuple of names, got None"),
        ({"ops": "add"}, "ops must name at least one op, as a tuple of names, got 'add'"),
        ({"ops": ("add", "sigmod")}, r"ops: unknown op 'sigmod'; did you mean 'sigmoid'\?"),
        ({"ops": ("add", 3)}, "ops: unknown op 3; known ops: add, .*"),
        ({"ops": ("add", "exp", "add")}, "ops must name each op once, got 'add' twice"),
    ],
)
def test_a_bad_search_space_is_one_clear_line(keywords, message, rng):
    checks = [lambda: random_graph(rng, **keywords)]
    checks.append(lambda: check_space(**{"num_nodes": NUM_NODES, "ops": OP_NAMES, **keywords}))
    if "ops" in keywords:
        checks += [lambda m=m: m(rng, Graph([("exp", (0,))]), **keywords) for m in MUTATIONS.values()]
    for check in checks:
        with pytest.raises(ValueError, match=message + "$") as error:
            check()
        assert "\n" not in str(error.value)


def test_numbers_and_names_from_a_config_or_numpy_are_taken(rng):
    graph = random_graph(rng, np.int64(5), ["add", "exp"])
    assert len(graph.nodes) == 5 and graph == Graph.from_json(graph.to_json())
