"""The screening benchmark: plain JAX sees what the search sees, and verdicts are compared as they should."""

import jax
import numpy as np
import pytest
from support.search_configs import digits, quick

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.search_space import CATALOG, Graph
from experiments.benchmarks import plain_jax
from experiments.benchmarks.candidates import evenly, mutants, random_graphs, rounds
from experiments.benchmarks.screening import Times, compared, parts, same_verdict

# -- Candidates


def test_candidates_depend_on_the_seed_and_not_on_how_many_there_are():
    assert random_graphs(5, seed=1)[:3] == random_graphs(3, seed=1) != random_graphs(3, seed=2)
    parents = list(CATALOG.values())
    children = mutants(parents, 30, seed=1)
    assert children[:7] == mutants(parents, 7, seed=1) != mutants(parents, 7, seed=2)
    changes = [
        sum(a != b for a, b in zip(child.nodes, parents[i % len(parents)].nodes, strict=True))
        for i, child in enumerate(children)
    ]
    assert max(changes) == 2 and set(changes) <= {0, 1, 2}


def test_a_choice_is_spread_evenly():
    assert evenly(3, 9) == [1, 4, 7]
    assert evenly(5, 3) == [0, 1, 2]
    assert evenly(2, 7) == [1, 5]
    assert rounds(range(5), 2) == [range(2), range(2, 4), range(4, 5)]


# -- Plain JAX


@pytest.fixture(scope="module")
def screening():
    config = quick()
    evaluator = make_evaluator(config, devices=jax.local_devices()[:1])
    return evaluator, plain_jax.make_screening(config, evaluator.anchors)


@pytest.mark.slow
def test_plain_jax_sees_the_weights_batches_and_thresholds_of_the_evaluator(screening):
    evaluator, screening = screening
    graph, tests = CATALOG["evonorm_s0"], screening.tests.copy_and_resolve_references()
    tests.quality_steps = 13  # the accuracy is on its way, and says which images were seen
    plain = plain_jax.examine(graph, screening._replace(tests=tests, threshold=0.0))
    ((norm, _),) = evaluator.stability([graph])
    (curves,) = evaluator.learning_curves([graph], [13])
    assert plain.norm == pytest.approx(norm, rel=1e-3)
    assert plain.accuracies["resnet_tiny"] == pytest.approx(curves["resnet_tiny"][0], abs=0.04)
    assert screening.threshold == evaluator.threshold
    assert plain.outcome == "accepted" and plain.seconds == plain.seconds_to_verdict > 0


def test_plain_jax_has_the_keys_of_the_evaluator_on_several_anchors():
    config = digits("resnet_small", "resnet_tiny")
    evaluator = make_evaluator(config)
    screening = plain_jax.make_screening(config, evaluator.anchors)
    assert [anchor.name for anchor in screening.tasks] == ["resnet_tiny", "resnet_small"]
    assert screening.stability_anchor == "resnet_tiny"
    for anchor in screening.tasks:
        keys = jax.random.split(evaluator._keys[anchor.name])
        assert (jax.random.key_data(keys[0]) == jax.random.key_data(anchor.init_key)).all()
        assert (jax.random.key_data(keys[1]) == jax.random.key_data(anchor.train_key)).all()


@pytest.mark.slow
def test_plain_jax_takes_all_steps_whatever_the_loss(screening):
    anchor = screening[1].tasks[0]
    graph = Graph.parse("exp(exp(exp(exp(x))))")
    state = jax.jit(lambda key: anchor.task.init(graph, key))(anchor.init_key)
    ended = []
    for task in (anchor.task, plain_jax.without_early_end(anchor.task)):
        train = jax.jit(lambda state, data, key, task=task: task.train(graph, state, data, key, np.int32(7)))
        ended.append(int(train(state, anchor.data, anchor.train_key).step))
    assert ended == [1, 7]


def test_the_time_to_the_verdict_ends_with_the_test_that_failed():
    def seconds(outcome, anchor=None):
        return plain_jax.Plain(outcome, {"anchor": anchor}, 1.0, {}, 5.0, {"a": 10.0, "b": 20.0})

    assert seconds("accepted").seconds == seconds("accepted").seconds_to_verdict == 35
    assert seconds("unstable", "a").seconds_to_verdict == 5
    assert seconds("low_quality", "a").seconds_to_verdict == 15
    assert seconds("low_quality", "b").seconds_to_verdict == 35


def test_verdicts_are_the_same_with_the_same_outcome_on_the_same_anchor():
    def same(outcome, anchor, ours, our_anchor):
        return same_verdict(outcome, {"anchor": anchor}, Evaluation(ours, {"anchor": our_anchor}))

    assert same("low_quality", "a", "low_quality", "a") and same("accepted", None, "accepted", None)
    assert not same("low_quality", "a", "low_quality", "b")
    assert not same("unstable", "a", "low_quality", "a")
    assert same("unstable", "a", "inert", None) and same("low_quality", "b", "inert", None)
    assert not same("accepted", None, "inert", None)


def test_a_duplicate_is_compared_by_the_verdict_of_its_original():
    graph, history = CATALOG["evonorm_s0"], History()
    evidence = {"anchor": "a", "accuracy": 0.1}
    for index, evaluation in enumerate([
        Evaluation("low_quality", evidence),
        Evaluation("duplicate", {"original": "low_quality"}, duplicate_of=0),
    ]):  # fmt: skip
        history.append(Record(index, Proposal(graph, "random"), evaluation))
    plain = plain_jax.Plain("low_quality", {"anchor": "a"}, 1.0, {"a": 0.12}, 5.0, {"a": 10.0})
    row = compared(1, graph, plain, history)
    assert row["equal"] is True and row["plain"]["seconds"] == 15
    assert row["ours"] == {"outcome": "low_quality", "evidence": evidence, "duplicate_of": 0}
    assert compared(1, graph, plain._replace(outcome="accepted"), history)["equal"] is False


def test_parts_of_screening_by_hand():
    times = Times(plain_inert=10, plain_other=20, filters=1, universal=2, one_device=5, devices=2.5)
    rows = parts(times, examined=10, inert=4, trained=5)
    assert [row["seconds"] for row in rows] == [160, 121, 101, 11, 5, 2.5]
    assert [row["measured_on"] for row in rows] == ["plain"] * 3 + ["sample", "all", "all"]
    assert rows[-1]["ratio"] == 64 and rows[-1]["gain"] == 2 and rows[-1]["per_hour"] == 14400
    without = parts(times._replace(universal=None), examined=10, inert=4, trained=5)
    assert [row["seconds"] for row in without] == [160, 121, 101, 5, 2.5]
