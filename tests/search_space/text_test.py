"""Equations: printed, parsed back, typeset."""

import pytest

from evonorms_jax.search_space import CATALOG, KNOWN, OPS, Graph, random_graph
from evonorms_jax.search_space.text import EquationError


@pytest.mark.parametrize(
    ("name", "equation"),
    [
        ("evonorm_b0", "x / max(std_bwh(x), v1 * x + std_wh(x))"),
        ("evonorm_b1", "x / max(std_bwh(x), (x + 1) * rms_wh(x))"),
        ("evonorm_b2", "x / max(std_bwh(x), rms_wh(x) - x)"),
        ("evonorm_s0", "x * sigmoid(v1 * x) / std_whc/g(x)"),
        ("evonorm_s1", "x * sigmoid(x) / std_whc/g(x)"),
        ("evonorm_s2", "x * sigmoid(x) / rms_whc/g(x)"),
    ],
)
def test_the_published_layers_read_as_in_the_paper(name, equation):
    assert str(CATALOG[name]) == equation


@pytest.mark.parametrize(
    ("nodes", "equation"),
    [
        # Node 4 and 5 are a sum and a product; the parentheses say how they are used.
        ([("add", (0, 2)), ("mul", (4, 3))], "(x + v0) * v1"),
        ([("mul", (0, 2)), ("add", (3, 4))], "v1 + x * v0"),
        ([("add", (0, 2)), ("add", (3, 4))], "v1 + (x + v0)"),
        ([("add", (0, 2)), ("add", (4, 3))], "x + v0 + v1"),
        ([("div", (0, 2)), ("div", (4, 3))], "x / v0 / v1"),
        ([("div", (0, 2)), ("div", (3, 4))], "v1 / (x / v0)"),
        ([("neg", (0,)), ("add", (3, 4))], "v1 - x"),
        ([("neg", (0,)), ("add", (4, 3))], "-x + v1"),
        ([("neg", (0,)), ("neg", (4,)), ("add", (3, 5))], "v1 - -x"),
        ([("add", (0, 2)), ("neg", (4,))], "-(x + v0)"),
        ([("add", (0, 2)), ("neg", (4,)), ("add", (3, 5))], "v1 - (x + v0)"),
        ([("mul", (0, 2)), ("neg", (4,))], "-(x * v0)"),
        ([("neg", (0,)), ("mul", (3, 4))], "v1 * -x"),
        ([("exp", (1,)), ("mul", (0, 4))], "x * 1"),
        ([("exp", (2,)), ("exp", (0,))], "exp(x)"),
    ],
)
def test_print_and_parse_by_hand(nodes, equation):
    graph = Graph(nodes)
    assert str(graph) == equation
    assert Graph.parse(equation).canonical == graph.canonical


def test_every_op_is_read_back():
    for op in OPS:
        graph = Graph([(op, (0, 3)[: OPS[op].arity])])
        assert Graph.parse(str(graph), num_nodes=None) == graph


@pytest.mark.parametrize("num_nodes", [10, 30])
def test_text_of_random_graphs_is_read_back(num_nodes, rng):
    for _ in range(600 if num_nodes == 10 else 200):
        graph = random_graph(rng, num_nodes)
        text = str(graph)
        parsed = Graph.parse(text, num_nodes)
        assert parsed.canonical == graph.canonical
        assert str(parsed) == text
        # Equal sub-expressions are merged; what is left of the nodes is filled up with dead ones.
        assert len(parsed.nodes) == num_nodes


SHORT, LONG = "max(std_bwh(x), v1 * x + std_wh(x) * v1)", "max(std_bwh(x), v1 * x + std_wh(x) * v1 + x)"
OUTER = "exp({}) * sigmoid(v0) * sigmoid(v1) + tanh(x)"


@pytest.mark.parametrize(
    ("equation", "text"),
    [
        (f"a / (x + a) where a = {SHORT}", f"{SHORT} / (x + {SHORT})"),  # 40 characters are repeated
        (f"a / (x + a) where a = {LONG}", f"a / (x + a) where a = {LONG}"),  # 44 get a name
        (f"{LONG} / (x + {LONG})", f"a / (x + a) where a = {LONG}"),
        (f"{LONG} / x", f"{LONG} / x"),  # used once
        (
            f"a / b + b / a where a = {LONG}; b = {OUTER.format(LONG)}",
            f"a / b + b / a where a = {LONG}; b = {OUTER.format('a')}",
        ),
    ],
)
def test_a_long_term_that_is_used_twice_is_printed_once_after_where(equation, text):
    assert len(SHORT) == 40 < len(LONG)
    graph = Graph.parse(equation, None)
    assert str(graph) == text
    assert Graph.parse(text, None) == graph


def test_the_text_grows_with_the_nodes_not_with_the_paths():
    """Each node is the one before it times itself: 2^20 paths lead from x to the output."""
    chains = {n: Graph([("add", (0, 2)), *(("mul", (3 + i, 3 + i)) for i in range(1, n))]) for n in (10, 20)}
    assert len(str(chains[20])) < 2.5 * len(str(chains[10]))
    assert Graph.parse(str(chains[20]), None) == chains[20]


def test_parse_fills_up_with_dead_nodes_in_front():
    graph = Graph.parse("x / std_bwh(x)", num_nodes=5)
    assert len(graph.nodes) == 5
    assert graph.live_nodes == (0, 7, 8)
    assert len(Graph.parse("x / std_bwh(x)", num_nodes=None).nodes) == 2
    assert len(Graph.parse("x / std_bwh(x)", num_nodes=1).nodes) == 2


def test_parse_accepts_free_writing():
    expected = Graph.parse("x / max(std_bwh(x), rms_wh(x) - x)").canonical
    for text in (
        "x/max(rms_wh(x)-x,std_bwh(x))",
        " div(x, max(add(neg(x), rms_wh(x)), std_bwh(x))) ",
        "(x) / (max((std_bwh(x)), a)) where a = rms_wh(x) + -x",
        "x / c where b = rms_wh(x); c = max(std_bwh(x), b - x)",
    ):
        assert Graph.parse(text).canonical == expected
    assert str(Graph.parse("x")) == "x + 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("std_bhw(x)", r"unknown op 'std_bhw'; did you mean 'std_bwh'\?$"),
        ("mean_whcg2(x)", r"unknown op .*; did you mean 'mean_whc/g'\?$"),
        ("x * sigmod(x)", r"unknown op 'sigmod'; did you mean 'sigmoid'\?$"),
        ("qqqq(x)", r"unknown op 'qqqq'; known: add, mul, .*$"),
        ("x + v3", r"unknown name 'v3'; "),
        ("x + y", "unknown name 'y'; known: x, v0, v1$"),
        ("sqrt(x, x)", r"sqrt takes 1 input\(s\), got 2$"),
        ("max(x)", r"max takes 2 input\(s\), got 1$"),
        ("2 * x", "cannot read '2'$"),
        ("x ** v1", r"cannot read 'x \*\* v1'$"),
        ("max(x, key=x)", "cannot read"),
        ("x.exp()", "cannot read"),
        ("x if x else v1", "cannot read"),
        ("sqrt(x", "not an equation: 'sqrt\\(x'$"),
        ("", "not an equation: ''$"),
        ("x\n+ v1", "not an equation: 'x\\\\n\\+ v1'$"),
        ("x where a", "expected 'name = expression' after where, got 'a'$"),
        ("exp(x) where a = x + exp(x)", "a name after where is not used by the equation$"),
        ("x where x = v0", "'x' after where has a meaning already$"),
        ("x * a where a = x; a = v0", "'a' after where has a meaning already$"),
        ("(" * 300 + "x" + ")" * 300, "not an equation"),
    ],
)
def test_bad_text_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        Graph.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("equation", "latex"),
    [
        (
            "x / max(std_bwh(x), v1 * x + std_wh(x))",
            r"\frac{x}{\max(s_{b,w,h}(x), v_1 x + s_{w,h}(x))}",
        ),
        ("x * sigmoid(x) / rms_whc/g(x)", r"\frac{x \sigma(x)}{\nu_{w,h,c/g}(x)}"),
        ("(x + 1) * v0", r"\left(x + 1\right) v_0"),
        ("square(x + v0)", r"\left(x + v_0\right)^2"),
        ("exp(x - v0)", r"e^{x - v_0}"),
        ("x - (v0 + v1)", r"x - \left(v_0 + v_1\right)"),
        ("x * -v1", r"x \left(-v_1\right)"),
    ],
)
def test_latex_by_hand(equation, latex):
    assert Graph.parse(equation).latex() == latex


def test_latex_is_balanced(rng):
    for _ in range(500):
        text = random_graph(rng).latex()
        depth = 0
        for character in text:
            depth += (character == "{") - (character == "}")
            assert depth >= 0
        assert depth == 0
        assert text.count("(") == text.count(")")
        assert text.count(r"\left") == text.count(r"\right")


def test_latex_is_understood_by_a_typesetter(rng):
    mathtext = pytest.importorskip("matplotlib.mathtext")
    parser = mathtext.MathTextParser("path")
    graphs = sorted((random_graph(rng) for _ in range(400)), key=lambda graph: len(str(graph)))[-12:]
    graphs += [Graph([(op, (0, 3)[: OPS[op].arity])]) for op in OPS]
    for graph in [*graphs, *KNOWN.values()]:
        assert parser.parse(f"${graph.latex()}$").width > 0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("x * sigmod(v1 * x)", "sigmod"),
        ("x / std_whc/g(x) + y", "y"),
        ("std_whc/g(x) / std_whc/q(x)", "std_whc/q"),
        ("x + ", " "),
        ("tanh(x, x)", "tanh"),
        ("x ** x", "x ** x"),
        ("a / (a + x) where a = exp(x); b", "b"),
        ("a / (a + x) where a = std_whc/g(x) + foo(x)", "foo"),
        ("x where x = v0", "x = v0"),
        ("x + ä", "ä"),
        ("v0 + äö(x) + y", "äö"),
    ],
)
def test_an_error_has_its_position(text, at):
    with pytest.raises(EquationError) as caught:
        Graph.parse(text)
    assert caught.value.equation == text
    assert caught.value.position == text.rindex(at)
