"""The examples run, the conversion does what it says, and `docs/choosing_a_layer.md` tells no tales."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import evonorms_jax as en
from evonorms_jax import nnx as en_nnx
from evonorms_jax.layers import LAYERS
from evonorms_jax.layers.linen import Layer
from experiments.examples import digits
from experiments.examples.convert_batchnorm import carry_over

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "choosing_a_layer.md").read_text()
EXAMPLES = sorted(p.stem for p in (ROOT / "experiments/examples").glob("*.py") if "def main" in p.read_text())
HEAVY = {"convert_batchnorm"}  # trains two networks


@pytest.fixture
def few_digits(monkeypatch):
    """The same 100 digits to train on and to validate with."""
    _, validation = digits.load()
    few = digits.Digits(validation.images[:100], validation.labels[:100])
    monkeypatch.setattr(digits, "load", lambda: (few, few))


def test_the_digits_are_normalized():
    train, validation = digits.load()
    assert train.images.shape == (4000, 14, 14, 1) and validation.images.shape == (500, 14, 14, 1)
    np.testing.assert_allclose([train.images.mean(), train.images.std()], [0, 1], atol=1e-3)
    (batch,) = digits.batches(train, 1)
    assert batch.images.shape == (100, 14, 14, 1) and batch.labels.shape == (100,)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.exhaustive) if name in HEAVY else name for name in EXAMPLES],
)
def test_the_example_runs_and_learns(name, few_digits, capsys):
    """Thirty steps on a hundred digits: more of them right than chance has it, in inference."""
    example = importlib.import_module(f"experiments.examples.{name}")
    result = example.main(steps=30)
    accuracies = result if isinstance(result, dict) else {name: result}
    accuracies.pop("converted", None)  # at once it may be anything
    assert min(accuracies.values()) > 0.2, accuracies
    (line,) = capsys.readouterr().out.splitlines()
    assert all(f"{value:.1%}" in line for value in accuracies.values())


def test_there_are_examples():
    assert EXAMPLES == ["convert_batchnorm", "linen_model", "nnx_model", "plain_function"]


# -- The conversion


def trained(rng, **conv):
    """Variables as of a network with BatchNorm, one of them in a block and one with a name given by hand."""

    def norm(*names):
        return {name: rng.normal(size=3).astype(np.float32) for name in names}

    kernel = rng.normal(size=(3, 3, 1, 3)).astype(np.float32)
    params = {"Conv_0": {"kernel": kernel, **conv}, "BatchNorm_0": norm("scale", "bias")}
    dense = {"kernel": kernel[0, 0], "bias": kernel[0, 0, 0]}
    block = {"BatchNorm_0": norm("scale", "bias"), "Dense_0": dense}
    stats = {"BatchNorm_0": norm("mean", "var"), "Block_0": {"BatchNorm_0": norm("mean", "var")}}
    last = norm("scale", "bias")
    return {
        "params": {**params, "Block_0": block, "last": last},
        "batch_stats": {**stats, "last": norm("mean", "var")},
    }


def fresh(new, leaves=("scale", "bias"), stats=("var",)):
    """Variables of its counterpart, as its `init` makes them."""
    norm, moving = ({name: np.ones(3, np.float32) for name in names} for names in (leaves, stats))
    kernel = np.zeros((3, 3, 1, 3), np.float32)
    dense = {"kernel": kernel[0, 0], "bias": kernel[0, 0, 0]}
    params = {"Conv_0": {"kernel": kernel}, f"{new}_0": norm, "last": norm}
    variables = {"params": {**params, "Block_0": {f"{new}_0": norm, "Dense_0": dense}}}
    if stats:
        variables["batch_stats"] = {f"{new}_0": moving, "Block_0": {f"{new}_0": moving}, "last": moving}
    return variables


def test_weights_and_moving_variances_carry_over_and_the_rest_is_fresh(rng):
    old = trained(rng)
    new = carry_over(old, fresh("EvoNormB0", ("scale", "bias", "v")))
    params, stats = new["params"], new["batch_stats"]
    assert jax.tree.structure(new) == jax.tree.structure(fresh("EvoNormB0", ("scale", "bias", "v")))
    for here, there in (
        (params["Conv_0"], old["params"]["Conv_0"]),
        (params["Block_0"]["Dense_0"], old["params"]["Block_0"]["Dense_0"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, here, there)
    for here, there in (
        (stats["EvoNormB0_0"], old["batch_stats"]["BatchNorm_0"]),
        (stats["Block_0"]["EvoNormB0_0"], old["batch_stats"]["Block_0"]["BatchNorm_0"]),
        (stats["last"], old["batch_stats"]["last"]),
    ):
        np.testing.assert_array_equal(here["var"], there["var"])
    for norm in (params["EvoNormB0_0"], params["Block_0"]["EvoNormB0_0"], params["last"]):
        assert {name: set(np.asarray(value)) for name, value in norm.items()} == {
            name: {1.0} for name in ("scale", "bias", "v")
        }


def test_a_layer_without_statistics(rng):
    start = fresh("EvoNormS0", ("scale", "bias", "v"), stats=())
    assert set(carry_over(trained(rng), start, new="EvoNormS0")) == {"params"}


def test_a_weight_without_a_counterpart_is_one_clear_line(rng):
    with pytest.raises(ValueError, match="the new model has no params/Conv_0/bias"):
        carry_over(trained(rng, bias=np.zeros(3, np.float32)), fresh("EvoNormB0"))
    with pytest.raises(ValueError, match="the trained model has no batch_stats/EvoNormB1_0/var of shape"):
        carry_over(trained(rng), fresh("EvoNormB1"))
    start = fresh("EvoNormB0")
    start["params"]["Conv_0"]["kernel"] = np.zeros((5, 5, 1, 3), np.float32)
    with pytest.raises(ValueError, match=r"has no params/Conv_0/kernel of shape \(5, 5, 1, 3\)"):
        carry_over(trained(rng), start)


@pytest.mark.parametrize(("v", "side"), [(1.0, -1), (-1.0, 1)])
def test_b0_is_linear_on_one_side_and_v_says_which(v, side):
    """The example starts at v = -1: like a ReLU, the output then stays below 1 on the negative side."""
    x = np.linspace(-9, 9, 19, dtype=np.float32).reshape(1, 19, 1)
    params = {"scale": np.ones(1), "bias": np.zeros(1), "v": np.full(1, v)}
    variables = {"params": params, "batch_stats": {"var": x.var(keepdims=True).reshape(1)}}
    y = en.EvoNormB0(use_running_average=True).apply(variables, x)
    linear, level = (np.sign(x) == side), (np.sign(x) == -side)
    np.testing.assert_allclose(y[linear], x[linear] / x.std(), rtol=1e-5)
    assert (np.abs(y[level]) < 1).all()


# -- The page


def table(header):
    """Rows of the table whose first column has this header, as lists of cells without backticks."""
    lines = PAGE[PAGE.index(f"| {header} |") :].split("\n\n")[0].splitlines()
    assert set(lines[1]) == set("|-")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def words(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_the_fields_and_their_defaults_are_those_of_the_layers():
    def text(value):
        return getattr(value, "__name__", None) or str(value)

    of_flax = {"parent", "name"}
    fields = {f.name: text(f.default) for f in dataclasses.fields(Layer) if f.name not in of_flax}
    rows = {words(name)[0]: words(default)[0] for name, default, _ in table("field")[1:]}
    assert list(rows.items()) == list(fields.items())

    parameters = inspect.signature(en_nnx.EvoNormB1.__init__).parameters
    keywords = {name: text(parameter.default) for name, parameter in parameters.items() if name in fields}
    assert keywords == fields | {"use_running_average": "False"}
    assert set(parameters) - set(fields) == {"self", "num_features", "leaf_inits", "rngs"}

    more = {
        name: {f.name for f in dataclasses.fields(getattr(en, name))} - of_flax - set(fields)
        for name in en.__all__
        if isinstance(getattr(en, name), type) and issubclass(getattr(en, name), Layer)
    }
    sentence = " ".join(PAGE[PAGE.index("Some layers have further fields") :].split("\n\n")[0].split())
    told = {}
    for part in sentence.split("; "):
        names, own = part.rsplit(": ", 1)
        told |= {name: set(words(own)) for name in words(names)}
    assert {name: own for name, own in more.items() if own} == told


def test_the_layers_have_the_formula_parameters_and_state_of_their_row():
    named = []
    for names, formula, _, _, state, parameters, *_ in table("layer")[1:]:
        for name in words(names):
            named.append(name)
            layer = en.norm_act(name, use_running_average=False)()
            x = jax.ShapeDtypeStruct((2, 4, 4, 8), np.float32)
            variables = jax.eval_shape(layer.init, jax.random.key(0), x)
            leaves = jax.tree_util.tree_leaves_with_path(variables)
            found = {path[0].key: set() for path, _ in leaves}
            for path, leaf in leaves:
                assert leaf.shape == ((1,) if path[-1].key in ("alpha", "shift") else (8,))
                found[path[0].key].add(path[-1].key)
            assert set(words(parameters)) == found["params"]
            assert set(words(state)) == found.get("batch_stats", set())
            if name in en.CATALOG:
                equation = re.sub(r"\bv\b", "v1", words(formula)[0])
                assert en.Graph.parse(equation).canonical == en.CATALOG[name].canonical
    assert set(named) == set(LAYERS)


def test_the_measured_figures_are_those_of_the_results():
    results = (ROOT / "docs" / "results.md").read_text()
    lines = results[results.index("| EvoNorm | B0 |") :].split("\n\n")[0].splitlines()
    head, _, time, memory = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    there = {name: cells for name, *cells in zip(head[1:], time[1:], memory[1:], strict=True)}
    here = {words(row[0])[0]: [cell.split(" ")[0] for cell in row[-2:]] for row in table("layer")[1:]}
    short = {"FRN + TLU": "frn_tlu", "GN-ReLU": "gn_relu", "BN-SiLU": "bn_relu"}  # the first of its row
    measured = {short.get(name, f"evonorm_{name.lower()}"): cells for name, cells in there.items()}
    assert {name: cells for name, cells in here.items() if any(cells)} == measured


def test_a_group_of_one_number_is_blown_up_and_a_larger_one_is_not(rng):
    x = rng.normal(size=(4, 1, 1, 16)).astype(np.float32)

    def gain(layer):
        y, _ = layer.init_with_output(jax.random.key(0), x)
        return np.abs(y / (x / (1 + np.exp(-x)))).max()

    assert gain(en.EvoNormS0()) == pytest.approx(1 / np.sqrt(1e-5), rel=1e-3)
    assert gain(en.EvoNormS0(group_size=8)) < 10
