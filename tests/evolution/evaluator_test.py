"""The evaluator: rounds, early ends, seeds, and tests that skip work without changing a verdict."""

import jax
import numpy as np
import pytest
from support import one_block
from support.random_graphs import renumbered
from support.search_configs import digits, quick

from evonorms_jax.evolution import rejection
from evonorms_jax.evolution.executors import Job, TrainedCandidate
from evonorms_jax.evolution.history import History, Proposal, Record
from evonorms_jax.evolution.proxy import ProxyState, anchor_keys
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import CATALOG, KNOWN, OP_NAMES, OPS, Graph, random_graph

EXPLODING = Graph.parse("exp(exp(exp(exp(x))))")


def timeless(evaluations):
    return [evaluation._replace(seconds=0.0) for evaluation in evaluations]


# -- The tests that a candidate must pass


def check_published_layers(evaluator, quality_steps, stability_steps):
    names = ("bn_relu", "bn_silu", "gn_relu", *CATALOG)
    graphs = [KNOWN[name] for name in names]
    for name, (norm, steps) in zip(names, evaluator.stability(graphs), strict=True):
        assert norm <= 1e8 and steps == stability_steps, name
    for name, curves in zip(names, evaluator.learning_curves(graphs, [quality_steps]), strict=True):
        assert min(curves.values()) >= [evaluator.threshold], f"{name}: {curves}"


def test_published_layers_pass_both_protocols(evaluator):
    check_published_layers(evaluator, quality_steps=30, stability_steps=10)


@pytest.mark.exhaustive
def test_published_layers_pass_both_protocols_on_the_small_anchors():
    config = digits("resnet_small", "mobilenet_small", "efficientnet_small")
    config.rejection.quality_threshold = 2.0  # the paper's, and 2.5 in the default search
    evaluator = make_evaluator(config, devices=jax.local_devices()[:2])
    assert evaluator.threshold == 0.2
    check_published_layers(evaluator, quality_steps=100, stability_steps=100)


def test_inert_candidates_fail_the_full_protocol_too(any_evaluator):
    rng = np.random.default_rng(5)
    graphs = [random_graph(rng) for _ in range(30)]
    graphs = [graph for graph in graphs if rejection.inert(graph)][:8]
    graphs += [Graph.parse("exp(exp(exp(exp(square(x)))))"), Graph.parse("x - x")]
    assert len(graphs) == 10 and all(map(rejection.inert, graphs))
    for graph, evaluation in zip(graphs, any_evaluator.evaluate(graphs), strict=True):
        assert evaluation.outcome in ("unstable", "low_quality") and not evaluation.scores, str(graph)


def test_a_duplicate_has_the_verdict_of_its_original_when_trained_anyway(any_evaluator):
    rng = np.random.default_rng(6)
    pairs = [(graph, renumbered(rng, graph)) for graph in (CATALOG["evonorm_b0"], CATALOG["evonorm_s1"])]
    pairs += [
        (Graph.parse("max(x, -x) / std_wh(x)"), Graph.parse("abs(x) / std_wh(x)")),
        (Graph.parse("x * exp(x)"), Graph.parse("exp(x) * (x + 0)")),
    ]
    evaluations = iter(any_evaluator.evaluate([graph for pair in pairs for graph in pair]))
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


def test_without_rejection_all_are_trained_to_the_end(evaluator, monkeypatch):
    monkeypatch.setattr(evaluator, "_tests", evaluator._tests._replace(enabled=False))
    evaluations = evaluator.evaluate([Graph.parse("v0 + 1"), EXPLODING])
    assert [evaluation.outcome for evaluation in evaluations] == ["accepted", "diverged"]
    assert evaluations[0].steps == quick().proxy.steps


def test_the_series_without_batch_statistics_rejects_them_first(evaluator, monkeypatch):
    monkeypatch.setattr(evaluator, "_tests", evaluator._tests._replace(allow_batch_dependent=False))
    (evaluation,) = evaluator.examine([CATALOG["evonorm_b0"]], History())
    assert (evaluation.outcome, evaluation.steps) == ("batch_dependent", 0)


def test_a_flat_candidate_costs_no_training_where_it_is_not_allowed(evaluator, monkeypatch):
    monkeypatch.setattr(evaluator, "_tests", evaluator._tests._replace(allow_flat=False))
    (evaluation,) = evaluator.examine([Graph.parse("mean_wh(x)")], History())
    assert (evaluation.outcome, evaluation.steps) == ("flat", 0)
    (evaluation,) = evaluator.examine([Graph.parse("v0 + 1")], History())
    assert evaluation.outcome == "inert", "the first test that it fails"


# -- Seeds, devices and executors


def test_the_keys_of_an_anchor_depend_on_the_seed_and_its_name_alone():
    def keys(*names):
        evaluator = make_evaluator(digits(*names))
        return {name: evaluator._programs[name]._keys[0] for name in names}

    def data(pair):
        return [jax.random.key_data(key).tolist() for key in pair]

    alone, among = keys("resnet_tiny"), keys("resnet_small", "resnet_tiny")
    assert data(alone["resnet_tiny"]) == data(among["resnet_tiny"]) == data(anchor_keys(0, "resnet_tiny"))
    assert data(among["resnet_small"]) != data(among["resnet_tiny"]) != data(anchor_keys(1, "resnet_tiny"))
    # CRC-32 of the name, the same in every process.
    expected = jax.random.split(jax.random.fold_in(jax.random.key(0, impl="rbg"), 0x74CAE429))
    assert data(alone["resnet_tiny"]) == data(expected)


config = one_block.config


@pytest.mark.parametrize("counts", [(2, 8), pytest.param((2, 1), marks=pytest.mark.exhaustive)], ids=str)
def test_an_evaluation_depends_on_no_other_candidate_and_no_number_of_devices(config, counts):
    evaluator, other = (make_evaluator(config, devices=jax.local_devices()[:count]) for count in counts)
    graphs = [KNOWN["evonorm_s0"], EXPLODING, KNOWN["gn_relu"], Graph.parse("x"), Graph.parse("tanh(x)")]
    together = timeless(evaluator.evaluate(graphs))
    assert together[0].outcome == "accepted" and together[1].outcome == "unstable"
    assert timeless(evaluator.evaluate(graphs[3:])) == together[3:]
    assert timeless(other.evaluate(graphs)) == together


@pytest.mark.parametrize(("name", "ops"), [("evonorm_b0", OP_NAMES), ("lnc_silu", tuple(OPS))])
def test_a_compiled_training_goes_on_from_the_universal_one_to_the_same_accuracy(name, ops, config):
    """Also of a layer with ops beyond the paper, in the program of a search that names them."""
    config.search_space.ops = ops
    executors = make_evaluator(config, devices=jax.local_devices()[:1])._programs["one_block"].executors
    (begun,) = executors["universal"].train([Job(KNOWN[name], 30)])
    job = Job(KNOWN[name], 60, begun.fetch(), begun.seconds / 30)
    (universal,) = executors["universal"].train([job])
    # The first job that `auto` sees is compiled, to measure it.
    (compiled,) = executors["auto"].train([job])
    assert compiled.build_seconds > 0 == universal.build_seconds
    assert compiled.step == universal.step == 60
    assert compiled.accuracy == pytest.approx(universal.accuracy, abs=0.04)
    assert compiled.accuracy != begun.accuracy


@pytest.mark.parametrize("executor", ["universal", "compiled", "auto"])
def test_the_executor_of_the_config_trains_the_survivors_of_the_quality_test(
    evaluator, executor, monkeypatch
):
    """The quality test itself is always universal."""
    jobs = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def train(self, given):
            jobs.extend((self.name, job.start, job.stop) for job in given)
            state = ProxyState({}, {}, {}, np.int32(given[0].stop), np.float32(0))
            return [TrainedCandidate(0.9, 0.0, job.stop, lambda: state, 1.0) for job in given]

    programs = evaluator._programs["resnet_tiny"]
    fakes = {name: Fake(name) for name in ("universal", "compiled", "auto")}
    monkeypatch.setitem(programs.__dict__, "executors", fakes)
    monkeypatch.setattr(evaluator, "_executor", executor)
    (evaluation,) = evaluator.evaluate([KNOWN["evonorm_b0"]])
    assert evaluation.outcome == "accepted" and evaluation.steps == 10 + 60
    assert jobs == [("universal", 0, 30), (executor, 30, 60)]


def test_a_job_knows_what_a_step_took_in_the_training_before(evaluator, monkeypatch):
    """Not over all that came before: 10 steps of 1 s, then 20 of 2 s. Steps count for each replica."""
    jobs = []

    class Fake:
        def train(self, given):
            jobs.extend(given)
            (job,) = given
            state = ProxyState({}, {}, {}, np.int32(job.stop), np.float32(0))
            seconds = len(jobs) * float(job.steps)
            return [TrainedCandidate(0.5, 0.0, job.stop, lambda: state, seconds)]

    monkeypatch.setitem(evaluator._programs["resnet_tiny"].__dict__, "executors", {"universal": Fake()})
    evaluator.learning_curves([CATALOG["evonorm_s0"]], [10, 30, 40])
    assert [(job.start, job.step_seconds) for job in jobs] == [(0, 0.0), (10, 1.0), (30, 2.0)]


def test_a_layer_that_passes_the_tests_is_trained_with_every_replica_and_again_with_fresh_ones(config):
    """The tests use the first seed. Each seed has its own weights, batches and crops."""
    single = make_evaluator(config, devices=jax.local_devices()[:1])
    config.proxy.replicas, config.rerank_replicas = 2, 2
    evaluator = make_evaluator(config, devices=jax.local_devices()[:1])
    graphs = [KNOWN["evonorm_s0"], EXPLODING]
    accepted, rejected = evaluator.evaluate(graphs)
    (alone,) = single.evaluate(graphs[:1])
    assert accepted.steps == alone.steps + config.proxy.steps and rejected.replicas == ()
    assert len(accepted.replicas) == 2 and accepted.replicas[0] == alone.scores["one_block"]
    assert accepted.scores["one_block"] == pytest.approx(np.mean(accepted.replicas))
    assert accepted.deviation == pytest.approx(abs(np.diff(accepted.replicas)[0]) / np.sqrt(2))
    assert alone.deviation is None and alone.replicas == (alone.scores["one_block"],)

    fresh, exploded = (scores["one_block"] for scores in evaluator.retrain(graphs))
    starts = [evaluator._programs["one_block"].start(replica) for replica in range(4)]
    weights = {np.asarray(start.params["Conv_0"]["kernel"]).tobytes() for start in starts}
    assert len(weights) == 4 and len(fresh) == 2 and exploded == [0.0, 0.0]
    curve = evaluator.replica_curves(graphs[:1], [config.proxy.steps], range(4))[0]["one_block"][:, 0]
    assert curve.tolist() == [*accepted.replicas, *fresh]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_search_may_train_by_another_optimizer(config, optimizer):
    config.proxy.update({"optimizer": optimizer, "learning_rate": 0.01})
    evaluator = make_evaluator(config, devices=jax.local_devices()[:1])
    (curve,) = evaluator.learning_curves([KNOWN["evonorm_s0"]], [20, config.proxy.steps])
    assert curve["one_block"][1] > evaluator.threshold


def test_the_early_hurdle_is_a_quality_test_on_the_cheapest_anchor(evaluator, monkeypatch):
    tests = evaluator._tests._replace(hurdle_steps=3, hurdle_threshold=99.0)
    monkeypatch.setattr(evaluator, "_tests", tests)
    monkeypatch.delitem(evaluator.__dict__, "_hurdles", raising=False)
    (evaluation,) = evaluator.evaluate([KNOWN["evonorm_b0"]])
    monkeypatch.delitem(evaluator.__dict__, "_hurdles")
    assert (evaluation.outcome, evaluation.evidence["step"]) == ("low_quality", 3)
    assert evaluation.evidence["threshold"] == 99 * evaluator.chance


def test_anchors_are_used_from_the_cheapest_on():
    evaluator = make_evaluator(digits("resnet_small", "resnet_tiny"))
    assert [anchor.name for anchor in evaluator.anchors] == ["resnet_tiny", "resnet_small"]
