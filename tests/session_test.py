"""A search before its first candidate: settings that are refused, known layers saved as they come."""

import pytest
from search_configs import quick

from evonorms_jax.evolution import session
from evonorms_jax.evolution.history import Evaluation
from evonorms_jax.evolution.hosts import Hosts
from evonorms_jax.evolution.keeper import Spectator
from evonorms_jax.evolution.session import KNOWN_LAYERS, make_evaluator


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", -1, "seed must be at least 0, got -1"),
        ("data.seed", -2, "data.seed must be at least 0, got -2"),
        ("proxy.replicas", 0, "proxy.replicas must be at least 1, got 0"),
        ("proxy.eval_batch_size", 0, "proxy.eval_batch_size must be at least 1, got 0"),
        ("rejection.quality_threshold", -0.5, "rejection.quality_threshold must be at least 0, got -0.5"),
        ("layer.momentum", 1.5, "layer.momentum must be from 0 to 1, got 1.5"),
        ("layer.momentum", -0.1, "layer.momentum must be from 0 to 1, got -0.1"),
    ],
)
def test_a_number_out_of_range_is_refused_before_anything_is_trained(key, value, message):
    config = quick()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError) as raised:
        make_evaluator(config)
    assert str(raised.value) == message


class Evaluator:
    """Two devices; remembers which graphs it was given at a time."""

    class devices:
        devices = (0, 1)

    def __init__(self):
        self.calls = []

    def evaluate(self, graphs):
        self.calls.append(list(graphs))
        return [Evaluation("accepted", {})] * len(graphs)


class Keeper(Spectator):
    def __init__(self, done=()):
        super().__init__()
        self.layers, self.started = list(done), False

    def known_layers(self):
        return self.layers

    def add_known_layer(self, name, graph, evaluation):
        assert graph == KNOWN_LAYERS[name]
        self.layers.append(name)

    def start(self):
        self.started = True


def test_known_layers_are_saved_after_each_share_of_the_devices():
    evaluator, keeper = Evaluator(), Keeper(["gn_relu"])
    session._train_known_layers(evaluator, keeper, Hosts(), lambda: False)
    assert [len(graphs) for graphs in evaluator.calls] == [2, 1]
    assert keeper.layers == ["gn_relu", "bn_relu", "evonorm_b0", "evonorm_s0"] and keeper.started


def test_asked_to_stop_it_keeps_the_known_layers_that_are_done_and_goes_on_later():
    evaluator, keeper = Evaluator(), Keeper()
    session._train_known_layers(evaluator, keeper, Hosts(), lambda: bool(evaluator.calls))
    assert keeper.layers == ["bn_relu", "gn_relu"] and not keeper.started
    session._train_known_layers(evaluator, keeper, Hosts(), lambda: False)
    assert keeper.layers == list(KNOWN_LAYERS) and keeper.started
    assert [len(graphs) for graphs in evaluator.calls] == [2, 2]
