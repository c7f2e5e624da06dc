"""The proxy task and the evaluator: both executors, early ends, and that what is skipped changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_graphs import renumbered
from search_configs import digits, quick

from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.evolution.proxy import ProxyState
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.search_space import BASELINES, CATALOG, Graph, random_graph

KNOWN = BASELINES | CATALOG


@pytest.fixture(scope="module")
def evaluator():
    return make_evaluator(quick())


@pytest.fixture(scope="module")
def tiny_digits():
    """The thresholds and steps of the default search, on one tiny anchor."""
    return make_evaluator(digits("resnet_tiny"))


@pytest.mark.slow
def test_known_layers_pass_both_protocols_on_the_small_anchors():
    config = digits("resnet_small", "mobilenet_small", "efficientnet_small")
    evaluator = make_evaluator(config)
    for name in ("bn_relu", "bn_silu", "gn_relu", *CATALOG):
        norm, steps = evaluator.stability(KNOWN[name])
        assert norm <= config.rejection.stability_norm and steps == 100, name
        accuracies = evaluator.learning_curves(KNOWN[name], [100])
        assert min(accuracies.values()) >= [evaluator.threshold], f"{name}: {accuracies}"
    assert evaluator.threshold == 0.2


@pytest.mark.slow
def test_inert_candidates_fail_the_full_protocol_too(tiny_digits):
    rng = np.random.default_rng(5)
    reasons = []
    while len(reasons) < 8:
        graph = random_graph(rng)
        if figure := rejection.inert(graph):
            reasons.append(figure["reason"])
            evaluation = tiny_digits.evaluate(graph)
            assert evaluation.outcome in ("unstable", "low_quality"), str(graph)
    assert tiny_digits.evaluate(Graph.parse("exp(exp(exp(exp(square(x)))))")).scores == {}
    assert tiny_digits.evaluate(Graph.parse("x - x")).outcome == "low_quality"


@pytest.mark.slow
def test_a_duplicate_has_the_verdict_of_its_original_when_trained_anyway(tiny_digits):
    rng = np.random.default_rng(6)
    pairs = [(graph, renumbered(rng, graph)) for graph in (CATALOG["evonorm_b0"], CATALOG["evonorm_s1"])]
    pairs += [
        (Graph.parse("max(x, -x) / std_wh(x)"), Graph.parse("abs(x) / std_wh(x)")),
        (Graph.parse("x * exp(x)"), Graph.parse("exp(x) * (x + 0)")),
    ]
    for original, other in pairs:
        assert rejection.fingerprint(original) == rejection.fingerprint(other)
        first, second = tiny_digits.evaluate(original), tiny_digits.evaluate(other)
        assert first.outcome == second.outcome, (str(original), first, second)
        for anchor, score in first.scores.items():
            assert abs(score - second.scores[anchor]) < 0.1


def test_a_duplicate_reuses_the_evaluation_and_names_its_original(evaluator):
    history = History()
    for index, text in enumerate(("x / std_wh(x)", "(x + 0) / std_wh(x)")):
        graph = Graph.parse(text)
        history.append(Record(index, Proposal(graph, "random"), evaluator.examine(graph, history)))
    first, second = (record.evaluation for record in history)
    assert second.outcome == "duplicate" and second.duplicate_of == 0
    assert second.scores == first.scores and second.steps == 0
    assert [r.index for r in history.ranked()] == ([0] if first.scores else [])


def test_an_inert_candidate_costs_no_training(evaluator):
    evaluation = evaluator.examine(Graph.parse("v0 + 1"), History())
    assert (evaluation.outcome, evaluation.steps) == ("inert", 0)


def test_training_stops_with_the_first_loss_that_is_not_finite(evaluator):
    evaluation = evaluator.evaluate(Graph.parse("exp(exp(exp(exp(x))))"))
    assert evaluation.outcome == "unstable" and evaluation.steps < 3
    candidate = Graph.parse("exp(exp(exp(exp(x))))")
    assert evaluator.learning_curves(candidate, [60]) == {"resnet_tiny": [0.0]}


def test_the_same_graph_has_the_same_evaluation_again(evaluator):
    first = evaluator.evaluate(CATALOG["evonorm_s0"])
    second = make_evaluator(quick()).evaluate(CATALOG["evonorm_s0"])
    assert first == second and first.outcome == "accepted"
    assert evaluator.evaluate(CATALOG["evonorm_s0"]) is first, "it is not trained a second time"


def test_both_executors_train_to_the_same_accuracy():
    for name in ("evonorm_b0", "gn_relu"):
        scores = []
        for executor in ("universal", "compiled"):
            config = quick()
            config.executor, config.rejection.enabled = executor, False
            config.proxy.steps = config.rejection.quality_steps
            scores.append(make_evaluator(config).evaluate(KNOWN[name]).scores["resnet_tiny"])
        assert scores[0] == pytest.approx(scores[1], abs=0.04), name


def test_replicas_are_trained_side_by_side():
    config = quick()
    config.proxy.replicas = 2
    config.proxy.steps = config.rejection.quality_steps
    evaluation = make_evaluator(config).evaluate(CATALOG["evonorm_b0"])
    assert evaluation.outcome == "accepted"
    # Two replicas: every step of training counts twice.
    assert evaluation.steps == 10 + 2 * 30


def test_the_series_without_batch_statistics_rejects_them_first():
    config = quick()
    config.rejection.allow_batch_dependent = False
    evaluation = make_evaluator(config).examine(CATALOG["evonorm_b0"], History())
    assert (evaluation.outcome, evaluation.steps) == ("batch_dependent", 0)


def test_anchors_are_used_from_the_cheapest_on():
    evaluator = make_evaluator(digits("resnet_small", "resnet_tiny"))
    assert [anchor.name for anchor in evaluator.anchors] == ["resnet_tiny", "resnet_small"]


class QuadraticTask:
    """L(w) = sum(k w^2) / 2 over two kernels: H = diag(k), so that H g / ||g|| is known."""

    def loss(self, candidate, params, stats, images, labels):
        del images, labels
        value = sum(jnp.sum(candidate[name] * jnp.square(params[name])) for name in ("a", "b")) / 2
        return value + jnp.sum(params["bias"]), stats


def fresh(params):
    """The start of a training with one replica."""
    return ProxyState(jax.tree.map(lambda p: p[None], params), {}, None, jnp.int32(0), jnp.zeros(1))


def test_the_stability_test_climbs_along_the_hessian_times_the_gradient():
    curvature = {"a": jnp.full((1, 1, 2, 1), 3.0), "b": jnp.full((1, 1, 1, 1), 0.5)}
    params = {"a": jnp.array([1.0, -2.0]).reshape(1, 1, 2, 1), "b": jnp.ones((1, 1, 1, 1))}
    params["bias"] = jnp.zeros(3)
    state = fresh(params)

    def climb(steps):
        test = make_stability_test(QuadraticTask(), steps=steps, max_norm=1e8, step_size=0.1)
        return jax.jit(test)(curvature, state, None, None)

    w, k = np.array([1.0, -2.0, 1.0]), np.array([3.0, 3.0, 0.5])
    norms = []
    for _ in range(3):
        norms.append(np.linalg.norm(k * w))
        ascent = k * (k * w) / norms[-1]
        w = w + 0.1 * np.linalg.norm(w) * ascent / np.linalg.norm(ascent)
    assert float(climb(3).norm) == pytest.approx(norms[-1], rel=1e-4)
    assert int(climb(3).steps) == 3


def test_the_stability_test_ends_with_a_norm_above_the_limit():
    curvature = {name: jnp.full((1, 1, 1, 1), 1e9) for name in ("a", "b")}
    params = {name: jnp.ones((1, 1, 1, 1)) for name in ("a", "b")} | {"bias": jnp.zeros(1)}
    test = make_stability_test(QuadraticTask(), steps=100, max_norm=1e8, step_size=0.1)
    result = jax.jit(test)(curvature, fresh(params), None, None)
    assert float(result.norm) > 1e8 and int(result.steps) == 0
