"""Scorers with stub networks and stub samplers: real images, collapsed ones, noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from evonorms_jax.data import DataSettings, load
from evonorms_jax.gan import inception_scores, store
from evonorms_jax.gan.classifier_scores import ClassifierScorer, nearest, within_class_variance
from evonorms_jax.gan.collection import collect
from evonorms_jax.gan.features import Embedder, FeatureNetwork
from evonorms_jax.gan.score_classifier import ScoreClassifier
from evonorms_jax.gan.scoring import ScoreSettings, balanced_labels, draw

SIDE, CLASSES = 12, 4
PIXELS = SIDE * SIDE


def stub(name="stub", convention="none", seed=0):
    """A network of random projections: 8 features, and logits that know the class of no image."""
    rng = np.random.default_rng(seed)
    matrix = jnp.asarray(rng.standard_normal((PIXELS, 8)) / PIXELS, jnp.float32)
    head = jnp.asarray(rng.standard_normal((8, CLASSES)), jnp.float32)

    def extract(variables, images):
        matrix, head = variables
        features = jnp.maximum(images.reshape(len(images), -1).astype(jnp.float32) @ matrix, 0)
        return features, features @ head

    return FeatureNetwork(name, "0badc0de", convention, 8, (matrix, head), extract)


@pytest.fixture(scope="module")
def data():
    return load("synthetic", train_size=300, validation_size=100, image_size=SIDE, with_test=True)


@pytest.fixture
def scorer(data, tmp_path):
    return make(data, tmp_path)


def make(data, folder, **settings):
    classifier = ScoreClassifier(stub(), 0.9, epath.Path(folder))
    return ClassifierScorer(classifier, data, ScoreSettings(samples=400, quick_samples=200, **settings))


def real_sampler(data):
    """Training images of the classes that are asked for."""

    def sample(labels, seed):
        rng = np.random.default_rng(seed)
        images, found = data.train
        return np.stack([images[rng.choice(np.flatnonzero(found == label))] for label in labels])

    return sample


def noise(labels, seed):
    return np.random.default_rng(seed).integers(0, 256, (len(labels), SIDE, SIDE, 1), np.uint8)


def collapsed(data):
    """One image for each class."""
    first = [np.flatnonzero(data.train.labels == label)[0] for label in range(CLASSES)]
    return lambda labels, seed: data.train.images[first][labels]


def test_real_images_score_near_the_floor_and_noise_near_the_ceiling(scorer, data):
    found = scorer.report(real_sampler(data), untrained=noise)
    bounds = found.scores["frechet"]
    assert 0 < bounds["floor"] < 0.2 * bounds["ceiling"]
    assert bounds["value"] < 0.2 * bounds["ceiling"]
    assert scorer.report(noise).scores["frechet"]["value"] == pytest.approx(bounds["ceiling"])
    assert found.scores["within_class_variance"] == pytest.approx(1, abs=0.3)
    assert found.scores["nearest_training"]["value"] == 0 < found.scores["nearest_training"]["held_out"]
    assert found.scores["recall"] > 0.7 and found.scores["precision"] > 0.7
    assert found.images.shape == (400, SIDE, SIDE, 1) and np.bincount(found.labels).tolist() == [100] * 4
    names = found.scores["names"]
    assert names["frechet"] == "synthetic Frechet distance" and "FID" not in str(found.scores)
    assert found.scores["weights_crc"] == "0badc0de" and found.scores["network_accuracy"] == 0.9


def test_a_collapse_within_the_classes_is_seen(scorer, data):
    found = scorer.evaluate(collapsed(data), "validation", lambda: False)
    assert found["within_class_variance"] == pytest.approx(0, abs=1e-9)
    assert found["frechet"] > scorer.evaluate(real_sampler(data), "validation", lambda: False)["frechet"]
    assert scorer.evaluate(noise, "validation", lambda: True) == {}


def test_scores_do_not_depend_on_the_size_of_a_batch(scorer, data, tmp_path):
    other = make(data, tmp_path / "other", batch_size=17)
    first, second = (each.report(real_sampler(data)).scores for each in (scorer, other))
    assert first["frechet"] == pytest.approx(second["frechet"], rel=1e-4)
    assert first["score"] == pytest.approx(second["score"], rel=1e-5)
    assert first["kernel_distance"]["value"] == pytest.approx(second["kernel_distance"]["value"], rel=1e-3)


def test_the_real_features_are_stored_with_the_network(scorer, data, tmp_path):
    (file,) = tmp_path.glob("real-*.npz")
    before = file.read_bytes()
    again = make(data, tmp_path)
    assert again.report(noise).scores == scorer.report(noise).scores and file.read_bytes() == before
    file.write_bytes(before[:-40])
    with pytest.raises(ValueError, match="damaged"):
        make(data, tmp_path)


def test_statistics_of_another_convention_or_network_are_refused(tmp_path):
    path = tmp_path / "reference.npz"
    store.save(path, {"mean": np.zeros(3)}, {"network": "Inception of 2015-12-05", "resize": "tf1"})
    arrays, about = store.load(path, {"resize": "tf1"})
    assert arrays["mean"].tolist() == [0, 0, 0] and about["network"] == "Inception of 2015-12-05"
    with pytest.raises(ValueError, match="statistics of resize 'tf1', and 'clean' is asked for"):
        store.load(path, {"resize": "clean"})
    with pytest.raises(ValueError, match="there is no file"):
        store.load(tmp_path / "other.npz", {})
    flipped = dict(np.load(path)) | {"mean": np.ones(3)}
    np.savez(path, **flipped)
    with pytest.raises(ValueError, match="its checksum differs"):
        store.load(path, {})


def test_scores_against_statistics_of_a_data_set(data, tmp_path):
    """The statistics are made once, and serve as a file of their own."""
    network = stub("Inception of 2015-12-05", "tf1")
    settings = ScoreSettings("inception", cache=str(tmp_path), samples=300, quick_samples=100)
    fields = DataSettings("synthetic", train_size=300, validation_size=100, image_size=SIDE)
    real = inception_scores.RealImages(fields, "train")
    found = inception_scores.InceptionScorer(network, real, settings).report(real_sampler(data)).scores
    (file,) = tmp_path.glob("reference-synthetic-*.npz")
    assert found["names"]["frechet"] == "FID" and found["real_images"] == 300
    assert found["reference"] == "synthetic, train part, 300 images, side 12" and found["resize"] == "tf1"
    assert found["frechet"]["value"] < 5 * found["frechet"]["floor"]
    given = settings._replace(reference=str(file))
    again = inception_scores.InceptionScorer(network, real, given)
    assert again.report(real_sampler(data)).scores == found
    assert again.evaluate(noise, "test", lambda: False) == {}
    assert again.evaluate(noise, "validation", lambda: False)["frechet"] > found["frechet"]["value"]
    with pytest.raises(ValueError, match="statistics of resize 'tf1', and 'clean'"):
        inception_scores.InceptionScorer(network._replace(convention="clean"), real, given)


def test_no_image_is_left_out_and_none_added(rng):
    """Seven images at batch three are those at batch seven, on one device and on eight."""
    images = rng.integers(0, 256, (7, SIDE, SIDE, 1), np.uint8)
    expected = Embedder(stub(), 7)(images)
    one = jax.devices()[:1]
    for size, devices in ((3, one), (7, one), (8, None)):
        found = Embedder(stub(), size, devices)(images)
        np.testing.assert_allclose(found.features, expected.features, rtol=1e-5)
        assert found.logits.shape == (7, CLASSES)
    with pytest.raises(ValueError, match="images uint8"):
        Embedder(stub())(images.astype(np.float32))


def test_the_feature_vectors_kept_are_spread_over_the_set(rng):
    images = rng.integers(0, 256, (50, SIDE, SIDE, 1), np.uint8)
    whole = Embedder(stub())(images)
    for cut in ([50], [7, 30, 13]):
        parts = np.split(images, np.cumsum(cut)[:-1])
        found = collect(Embedder(stub(), 8), parts, 50, most_kept=10)
        np.testing.assert_allclose(found.features, whole.features[::5], rtol=1e-5)
        assert found.moments.count == len(found.logits) == 50


def test_samples_are_drawn_in_parts_with_seeds_of_their_own():
    seen = []

    def sample(labels, seed):
        seen.append((len(labels), seed))
        return np.zeros((len(labels), 2, 2, 1), np.uint8)

    labels = balanced_labels(2500, 10)
    assert np.bincount(labels).tolist() == [250] * 10 and labels.dtype == np.int32
    assert sum(len(part) for part in draw(sample, labels, 3)) == 2500
    assert [size for size, _ in seen] == [1000, 1000, 500] and len({seed for _, seed in seen}) == 3


def test_distances_by_hand():
    images = np.array([0, 30], np.uint8).reshape(2, 1, 1, 1) * np.ones((1, 2, 2, 1), np.uint8)
    others = np.full((1, 2, 2, 1), 10, np.uint8)
    np.testing.assert_allclose(nearest(images, others), [10, 20])
    features = np.array([[0.0, 0], [2, 0], [5, 5], [5, 9]])
    assert within_class_variance(features, np.array([0, 0, 1, 1])) == (1 + 4) / 2
