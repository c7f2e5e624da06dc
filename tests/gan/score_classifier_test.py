"""The classifier of the scores: trained once, found again, and used with the features before its logits."""

import jax
import numpy as np
import pytest
from etils import epath

from evonorms_jax.data import load, normalize
from evonorms_jax.gan import score_classifier
from evonorms_jax.gan.features import Embedder
from evonorms_jax.gan.score_classifier import train_classifier
from evonorms_jax.layers import norm_act
from evonorms_jax.models import build_model
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.lock import WorkdirInUseError
from evonorms_jax.training import loop
from experiments.configs import digit_classifier


@pytest.fixture(scope="module")
def recipe():
    config = digit_classifier.get_config("quick")
    config.steps = config.eval_every = config.checkpoint_every = 4
    config.optimizer.warmup_steps = 1
    config.batch_size, config.eval_batch_size = 16, 64
    config.data.source, config.data.image_size, config.data.crop = "synthetic", 12, 10
    return config


@pytest.fixture(scope="module")
def data(recipe):
    return load("synthetic", image_size=12, with_test=True)


@pytest.fixture(scope="module")
def trained(recipe, data, tmp_path_factory):
    return train_classifier(recipe, data, tmp_path_factory.mktemp("cache"))


def test_the_logits_are_those_of_the_training_and_follow_from_the_features(trained, recipe, data):
    images, labels = data.test
    found = Embedder(trained.network, 64)(images)
    with Checkpoints(trained.folder / loop.CHECKPOINTS, write=False) as checkpoints:
        state = checkpoints.restore().arrays
    variables = {name: state[name] for name in ("params", "batch_stats")}
    fields = {"num_classes": data.num_classes, "dtype": np.float32}
    model = build_model(**recipe.model, norm_act=norm_act(**recipe.layer), **fields)
    logits = jax.jit(lambda x: model.apply(variables, normalize(x, data.mean, data.std), train=False))(images)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-5)
    dense = state["params"]["classifier"]["dense"]
    np.testing.assert_allclose(found.features @ dense["kernel"] + dense["bias"], found.logits, atol=1e-5)
    assert found.features.shape[1] == trained.network.features == 32
    assert trained.accuracy == pytest.approx(np.mean(found.logits.argmax(1) == labels), abs=1e-6)


def test_it_is_trained_once_and_then_found(trained, recipe, data):
    def files():
        return {path: path.stat().mtime for path in (trained.folder / loop.CHECKPOINTS).iterdir()}

    before = files()
    again = train_classifier(recipe, data, trained.folder.parent)
    assert again.network.crc == trained.network.crc and again.folder == trained.folder
    assert files() == before


def test_another_recipe_is_another_classifier(trained, recipe, data, tmp_path):
    other = recipe.copy_and_resolve_references()
    other.seed = 1
    with pytest.MonkeyPatch.context() as patch:
        seen = []

        def train(config, folder):
            seen.append(epath.Path(folder).name)
            raise KeyboardInterrupt

        patch.setattr(score_classifier.loop, "train", train)
        for config in (recipe, other):
            with pytest.raises(KeyboardInterrupt):
                train_classifier(config, data, tmp_path)
    assert seen[0] == trained.folder.name != seen[1]
    assert all(name.startswith("classifier-synthetic-") for name in seen)


def test_a_second_process_waits_for_the_first(trained, recipe, data, monkeypatch):
    calls = []

    def train(config, folder):
        calls.append(folder)
        if len(calls) < 3:
            raise WorkdirInUseError("in use")
        return loop.Result(4, 1, {}, {"accuracy": 0.5})

    monkeypatch.setattr(score_classifier.loop, "train", train)
    monkeypatch.setattr(score_classifier.time, "sleep", lambda seconds: None)
    assert train_classifier(recipe, data, trained.folder.parent).accuracy == 0.5 and len(calls) == 3
