"""The files of a generator's work directory, with stand-ins for its networks and its scorer."""

import itertools
import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from evonorms_jax.gan import results
from evonorms_jax.gan.scoring import Report, inception_changes, lines
from evonorms_jax.training.steps import TrainState
from evonorms_jax.training.task import Criterion, Task
from experiments.configs import gan_digits

CLASSES, SIDE, LATENT = 3, 4, 2
#: Distance of the checkpoint at each step: the second is the best.
DISTANCES = {0: 9.0, 2: 5.0, 4: 3.0, 6: 4.0}


def build(config, devices=None):
    """A task whose state is its step."""
    assert config.task == "gan"
    zero = TrainState(jnp.int32(0), {"kernel": jnp.zeros(3)}, {}, (), {})
    return Task(
        init=lambda: zero,
        train_step=lambda state, batch: (state._replace(step=state.step + 1), {"loss": jnp.float32(1)}),
        batches=itertools.count,
        evaluate=lambda state, part, stop: {"frechet": DISTANCES[int(state.step)]},
        learning_rate=lambda step: 0.1,
        target=zero,
        steps=6,
        criterion=Criterion("frechet", largest=False),
    )


class Scorer:
    """Distance of the step that a sampler's images tell."""

    num_classes = CLASSES

    def report(self, sample, untrained=None):
        labels = np.arange(6, dtype=np.int32) % CLASSES
        images = sample(labels, 0)
        distances = {"value": images[0, 0, 0, 0] * 1.0, "ceiling": untrained(labels, 0)[0, 0, 0, 0] * 1.0}
        spread = {"score": 2.5, "score_deviation": 0.1, "kernel_distance": {"value": 0.5, "deviation": 0.1}}
        names = {
            "frechet": "digit Frechet distance",
            "score": "digit score",
            "kernel": "digit kernel distance",
        }
        frechet = {"value": distances["value"], "floor": 0.5, "ceiling": distances["ceiling"]}
        scores = {"frechet": frechet, "agreement": 0.8, "names": names} | spread
        return Report(scores, images, labels)


@pytest.fixture
def config(monkeypatch):
    config = gan_digits.get_config("quick")
    config.log_every, config.eval_every, config.checkpoint_every = 1, 2, 2

    def make_sampler(config, state):
        """Images with the step, the truncation and the class as grey levels."""

        def sample(labels, seed):
            images = np.zeros((len(labels), SIDE, SIDE, 1), np.uint8)
            images[:, 0] = DISTANCES[int(state.step)]
            images[:, 1] = round(100 * (config.sampling.truncation or 0))
            images[:, 2] = labels[:, None, None]
            return images

        return sample

    generator = types.SimpleNamespace(num_classes=CLASSES, latent=LATENT)
    monkeypatch.setattr(results, "make_sampler", make_sampler)
    monkeypatch.setattr(results, "make_scorer", lambda config: Scorer())
    monkeypatch.setattr(results, "networks_of", lambda *_: types.SimpleNamespace(generator=generator))
    monkeypatch.setattr(
        results, "make_renderer", lambda *_: lambda z, labels: np.zeros((len(z), SIDE, SIDE, 1), np.uint8)
    )
    return config


def test_a_training_ends_with_scores_and_samples_of_the_best_checkpoint(config, tmp_path):
    scores = results.train(config, tmp_path, build)
    assert scores == json.loads((tmp_path / "scores.json").read_text())
    assert scores["frechet"] == {"value": 3.0, "floor": 0.5, "ceiling": 9.0} and scores["step"] == 4
    assert (scores["checkpoint"], scores["truncation"]) == ("best", "untruncated")
    assert scores["hardware"]["jax"] and len(scores["date"]) == 10
    with np.load(tmp_path / "samples.npz") as samples:
        assert samples["images"].dtype == np.uint8 and samples["images"].shape == (6, SIDE, SIDE, 1)
        assert samples["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    with Image.open(tmp_path / "samples.png") as sheet:
        assert sheet.size == (10 * 56 + 18, 3 * 56 + 4)
    (tmp_path / "scores.json").write_text("{}")
    assert results.train(config, tmp_path, build) == {}, "a finished work directory is left unchanged"


def test_later_scores_have_a_file_of_their_own(config, tmp_path):
    first = results.train(config, tmp_path, build)
    changes = inception_changes("weights.npz")
    later = results.score(tmp_path, build, best=False, changes=changes, extra=True)
    assert (later["step"], later["frechet"]["value"]) == (6, 4.0)
    assert json.loads((tmp_path / "scores-newest-inception.json").read_text()) == later
    assert json.loads((tmp_path / "scores.json").read_text()) == first


def test_without_a_network_there_are_no_scores(config, tmp_path):
    config.scores.network = "none"
    assert results.train(config, tmp_path, build) == {} and not (tmp_path / "scores.json").exists()


def test_sheets_are_named_by_their_truncation(config, tmp_path):
    results.train(config, tmp_path, build)
    settings = results.SheetSettings(columns=2, truncations=(0.5, 1.0))
    changes = {"sampling.truncation": 0.7, "sampling.method": "scaled"}
    paths = results.draw_sheets(tmp_path, build, settings, best=True, changes=changes)
    kinds = ("classes", "interpolation-latent", "interpolation-class", "interpolation-both")
    names = [f"{kind}-scaled-0.7.png" for kind in kinds] + ["truncation-scaled-0.5-1.png"]
    assert [path.name for path in paths] == names
    pixels = {path.name: np.asarray(Image.open(path)) for path in paths}
    step = 56 // SIDE
    classes = pixels[names[0]]
    assert classes.shape == (3 * 56 + 4, 2 * 56 + 2)
    assert classes[step, 0] == 70 and classes[2 * 58 + 2 * step, 0] == 2
    assert [pixels[names[-1]][row * 58 + step, 0] for row in (0, 1)] == [50, 100]
    plain = results.draw_sheets(tmp_path, build, results.SheetSettings(), best=False, changes={})
    assert plain[0].name == "classes-untruncated.png" and len(plain) == 4


def test_another_work_directory_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="is no work directory"):
        results.score(tmp_path / "none", build)
    config.task = "detection"
    (tmp_path / "config.json").write_text(json.dumps({"version": "0", "config": config.to_dict()}))
    with pytest.raises(ValueError, match="no work directory of a generator"):
        results.score(tmp_path, build)


def test_the_scores_in_words(config, tmp_path):
    words = ", ".join(lines(results.train(config, tmp_path, build)))
    assert words == (
        "digit Frechet distance 3 (floor 0.5, ceiling 9), digit score 2.50 ± 0.10, "
        "digit kernel distance 0.5000 ± 0.1000, agreement 80.0 %"
    )
