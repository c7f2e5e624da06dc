"""The proxy task and the evaluator: rounds, early ends, and that what is skipped changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_graphs import renumbered
from support.search_configs import digits, quick

from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.executors import TrainedCandidate
from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.evolution.proxy import ProxyState
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.evolution.stability import make_stability_test
from evonorms_jax.search_space import BASELINES, CATALOG, Graph, random_graph

KNOWN = BASELINES | CATALOG
EXPLODING = Graph.parse("exp(exp(exp(exp(x))))")


def two_devices():
    return jax.local_devices()[:2]


def timeless(evaluations):
    return [evaluation._replace(seconds=0.0) for evaluation in evaluations]


@pytest.fixture(scope="module")
def evaluator():
    return make_evaluator(quick(), devices=two_devices())


@pytest.fixture(scope="module")
def tiny_digits():
    """The thresholds and steps of the default search, on one tiny anchor."""
    return make_evaluator(digits("resnet_tiny"), devices=two_devices())


@pytest.mark.slow
def test_published_layers_pass_both_protocols_on_the_small_anchors():
    config = digits("resnet_small", "mobilenet_small", "efficientnet_small")
    evaluator = make_evaluator(config, devices=two_devices())
    names = ("bn_relu", "bn_silu", "gn_relu", *CATALOG)
    graphs = [KNOWN[name] for name in names]
    for name, (norm, steps) in zip(names, evaluator.stability(graphs), strict=True):
        assert norm <= config.rejection.stability_norm and steps == 100, name
    for name, curves in zip(names, evaluator.learning_curves(graphs, [100]), strict=True):
        assert min(curves.values()) >= [evaluator.threshold], f"{name}: {curves}"
    assert evaluator.threshold == 0.2


@pytest.mark.slow
def test_inert_candidates_fail_the_full_protocol_too(tiny_digits):
    rng = np.random.default_rng(5)
    graphs = [random_graph(rng) for _ in range(30)]
    graphs = [graph for graph in graphs if rejection.inert(graph)][:8]
    graphs += [Graph.parse("exp(exp(exp(exp(square(x)))))"), Graph.parse("x - x")]
    assert len(graphs) == 10 and all(map(rejection.inert, graphs))
    for graph, evaluation in zip(graphs, tiny_digits.evaluate(graphs), strict=True):
        assert evaluation.outcome in ("unstable", "low_quality") and not evaluation.scores, str(graph)


@pytest.mark.slow
def test_a_duplicate_has_the_verdict_of_its_original_when_trained_anyway(tiny_digits):
    rng = np.random.default_rng(6)
    pairs = [(graph, renumbered(rng, graph)) for graph in (CATALOG["evonorm_b0"], CATALOG["evonorm_s1"])]
    pairs += [
        (Graph.parse("max(x, -x) / std_wh(x)"), Graph.parse("abs(x) / std_wh(x)")),
        (Graph.parse("x * exp(x)"), Graph.parse("exp(x) * (x + 0)")),
    ]
    evaluations = iter(tiny_digits.evaluate([graph for pair in pairs for graph in pair]))
    for original, other in pairs:
        assert rejection.fingerprint(original) == rejection.fingerprint(other)
        first, second = next(evaluations), next(evaluations)
        assert first.outcome == second.outcome, (str(original), first, second)
        for anchor, score in first.scores.items():
            assert abs(score - second.scores[anchor]) < 0.1


def test_a_duplicate_reuses_the_evaluation_and_names_its_original(evaluator):
    """Whether its original is of an earlier round or of its own."""
    texts = ("x / std_wh(x)", "v0 + 1", "(x + 0) / std_wh(x)", "x * 1 / std_wh(x)")
    graphs = [Graph.parse(text) for text in texts]
    whole, split = History(), History()
    for index, evaluation in enumerate(evaluator.examine(graphs, whole)):
        whole.append(Record(index, Proposal(graphs[index], "random"), evaluation))
    for part in (graphs[:1], graphs[1:]):
        for graph, evaluation in zip(part, evaluator.examine(part, split), strict=True):
            split.append(Record(len(split), Proposal(graph, "random"), evaluation))
    first, _, *others = (record.evaluation for record in whole)
    assert timeless(r.evaluation for r in split) == timeless(r.evaluation for r in whole)
    for other in others:
        assert other.outcome == "duplicate" and other.duplicate_of == 0
        assert other.scores == first.scores and other.steps == 0
    assert [r.index for r in whole.ranked()] == ([0] if first.scores else [])


def test_an_inert_candidate_costs_no_training(evaluator):
    (evaluation,) = evaluator.examine([Graph.parse("v0 + 1")], History())
    assert (evaluation.outcome, evaluation.steps) == ("inert", 0)


def test_training_stops_with_the_first_loss_that_is_not_finite(evaluator):
    (evaluation,) = evaluator.evaluate([EXPLODING])
    assert evaluation.outcome == "unstable" and evaluation.steps < 3
    assert evaluator.learning_curves([EXPLODING], [60]) == [{"resnet_tiny": [0.0]}]


def test_an_evaluation_depends_on_no_other_candidate_and_no_number_of_devices(evaluator):
    graphs = [KNOWN["evonorm_s0"], EXPLODING, KNOWN["gn_relu"], Graph.parse("x"), Graph.parse("tanh(x)")]
    together = evaluator.evaluate(graphs)
    alone = make_evaluator(quick(), devices=jax.local_devices()[:1])
    assert timeless(alone.evaluate(graphs[3:])) == timeless(together[3:])
    assert timeless(alone.evaluate(graphs[:1])) == timeless(together[:1])
    assert together[0].outcome == "accepted"
    many = make_evaluator(quick(), devices=jax.local_devices())
    assert timeless(many.evaluate(graphs)) == timeless(together)


@pytest.mark.parametrize("executor", ["compiled", "auto"])
def test_all_executors_train_to_the_same_accuracy(evaluator, executor):
    config = quick()
    config.executor = executor
    other = make_evaluator(config, devices=two_devices())
    graphs = [KNOWN["evonorm_b0"], KNOWN["gn_relu"]]
    for theirs, ours in zip(other.evaluate(graphs), evaluator.evaluate(graphs), strict=True):
        assert theirs.scores["resnet_tiny"] == pytest.approx(ours.scores["resnet_tiny"], abs=0.04)
        # The compiled program goes on where the quality test of the universal one stopped.
        assert theirs.steps == ours.steps


def test_a_job_knows_what_a_step_took_in_the_training_before():
    """Not over all that came before: 10 steps of 1 s, then 20 of 2 s."""
    evaluator, jobs = make_evaluator(quick(), devices=two_devices()), []

    class Fake:
        def train(self, given):
            jobs.extend(given)
            (job,) = given
            state = ProxyState({}, {}, {}, np.int32(job.stop), np.zeros(1))
            return [TrainedCandidate(0.5, np.zeros(1), job.stop, lambda: state, len(jobs) * float(job.steps))]

    evaluator._executors = {"resnet_tiny": {"universal": Fake()}}
    evaluator.learning_curves([CATALOG["evonorm_s0"]], [10, 30, 40])
    assert [(job.start, job.step_seconds) for job in jobs] == [(0, 0.0), (10, 1.0), (30, 2.0)]


def test_replicas_are_trained_side_by_side():
    config = quick()
    config.proxy.replicas = 2
    config.proxy.steps = config.rejection.quality_steps
    (evaluation,) = make_evaluator(config, devices=two_devices()).evaluate([CATALOG["evonorm_b0"]])
    assert evaluation.outcome == "accepted"
    # Two replicas: every step of training counts twice.
    assert evaluation.steps == 10 + 2 * 30


def test_without_rejection_all_are_trained_to_the_end():
    config = quick()
    config.rejection.enabled = False
    evaluations = make_evaluator(config, devices=two_devices()).evaluate([Graph.parse("v0 + 1"), EXPLODING])
    assert [evaluation.outcome for evaluation in evaluations] == ["accepted", "diverged"]
    assert evaluations[0].steps == config.proxy.steps


def test_the_series_without_batch_statistics_rejects_them_first():
    config = quick()
    config.rejection.allow_batch_dependent = False
    (evaluation,) = make_evaluator(config).examine([CATALOG["evonorm_b0"]], History())
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
