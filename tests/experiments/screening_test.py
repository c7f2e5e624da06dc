"""The screening benchmark: plain JAX gets the inputs of the search, and verdicts are compared by rule."""

import jax
import numpy as np
import pytest
from support import one_block
from support.search_configs import digits

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.evolution.proxy import anchor_keys
from evonorms_jax.evolution.session import make_evaluator
from evonorms_jax.models import get_anchor
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


config = one_block.config


@pytest.mark.parametrize("anchor", ["one_block", pytest.param("resnet_tiny", marks=pytest.mark.exhaustive)])
def test_plain_jax_has_the_weights_batches_and_thresholds_of_the_evaluator(config, anchor):
    config.anchors = (anchor,)
    config.rejection.quality_steps = 13  # an accuracy before convergence tells which images were seen
    config.rejection.quality_threshold = 0.0
    evaluator = make_evaluator(config, devices=jax.local_devices()[:1])
    screening = plain_jax.make_screening(config, evaluator.anchors)
    plain = plain_jax.examine(CATALOG["evonorm_s0"], screening)
    ((norm, _),) = evaluator.stability([CATALOG["evonorm_s0"]])
    (curves,) = evaluator.learning_curves([CATALOG["evonorm_s0"]], [13])
    assert plain.norm == pytest.approx(norm, rel=1e-3)
    assert plain.accuracies[anchor] == pytest.approx(curves[anchor][0], abs=0.04)
    assert screening.threshold == evaluator.threshold
    assert plain.outcome == "accepted" and plain.seconds == plain.seconds_to_verdict > 0


def test_plain_jax_has_the_keys_and_the_order_of_several_anchors():
    config = digits("resnet_small", "resnet_tiny")
    screening = plain_jax.make_screening(
        config, [get_anchor(name) for name in ("resnet_tiny", "resnet_small")]
    )
    assert [anchor.name for anchor in screening.tasks] == ["resnet_tiny", "resnet_small"]
    assert screening.stability_anchor == "resnet_tiny"
    for anchor in screening.tasks:
        keys = anchor_keys(config.seed, anchor.name)
        for key, own in zip(keys, (anchor.init_key, anchor.train_key), strict=True):
            assert (jax.random.key_data(key) == jax.random.key_data(own)).all()


def test_plain_jax_takes_all_steps_whatever_the_loss(config):
    (anchor,) = plain_jax.make_screening(config, [one_block.NETWORK]).tasks
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
