"""Scores of generated digits, or of other small images, in the features of a classifier trained on them.

N samples, M real images, D features, K classes. Features are divided by their standard deviations over the
held-out real images, so that distances do not depend on the scale of a layer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from evonorms_jax.data import ImageData
from evonorms_jax.errors import UserError
from evonorms_jax.gan import store
from evonorms_jax.gan.collection import Collection, collect, collection_of
from evonorms_jax.gan.features import Embedded, Embedder
from evonorms_jax.gan.frechet import frechet_distance, moments_of
from evonorms_jax.gan.sampling import Sampler
from evonorms_jax.gan.score_classifier import ScoreClassifier
from evonorms_jax.gan.scores import class_score, squared_distances
from evonorms_jax.gan.scoring import Kept, Names, Report, ScoreSettings, balanced_labels, compare, draw
from evonorms_jax.runs.tensors import fingerprint

_PARTS = ("train", "validation", "test")
_HELD_OUT = ("validation", "test")
_NOUNS = {"mnist5k": "digit"}
_SUBSETS = 10  # pairs of subsets of the kernel distance, of 1,000 each where the held-out images suffice
_LEAST_DEVIATION = 1e-6  # of a feature, against division by 0


class ClassifierScorer:
    """Scores samplers against the held-out images, validation and test part, which trained no network.

    Features of a classifier's own training images are sharper, so these serve for the floor alone: the
    distance of the real training images to the held-out ones.
    """

    def __init__(self, classifier: ScoreClassifier, data: ImageData, settings: ScoreSettings):
        """Embeds the real images on first use of a classifier. Errors are those of `store.load`."""
        if data.test is None:
            raise UserError(f"scores need the test part of {data.name}")
        self.num_classes, self._settings = data.num_classes, settings
        self._data, self._classifier = data, classifier
        self._embed = Embedder(classifier.network, settings.batch_size)
        real = self._embed_real()
        deviation = np.concatenate([real[part].features for part in _HELD_OUT]).std(0)
        self._scale = 1 / np.maximum(deviation, _LEAST_DEVIATION)
        self._real = {part: self._standardized(real[part]) for part in _PARTS}
        held_out = [self._real[part] for part in _HELD_OUT]
        self._held_out = Embedded(*map(np.concatenate, zip(*held_out, strict=True)))
        self._held_out_labels = np.concatenate([getattr(data, part).labels for part in _HELD_OUT])

    def _embed_real(self) -> dict[str, Embedded]:
        """Features and logits of the real images by part, from the file beside the classifier."""
        images = {part: getattr(self._data, part).images for part in _PARTS}
        about = self._classifier.network.identity() | {"images_crc": fingerprint(images)}
        path = self._classifier.folder / f"real-{about['images_crc']}.npz"
        if not path.exists():
            found = {part: self._embed(images[part])._asdict() for part in _PARTS}
            arrays = {f"{part}/{name}": values for part in _PARTS for name, values in found[part].items()}
            store.save(path, arrays, about)
        arrays, _ = store.load(path, about)
        return {part: Embedded(*(arrays[f"{part}/{name}"] for name in Embedded._fields)) for part in _PARTS}

    def _standardized(self, embedded: Embedded) -> Embedded:
        return embedded._replace(features=embedded.features * self._scale)

    def evaluate(self, sample: Sampler, part: str, stop: Callable[[], bool]) -> dict[str, float]:
        """Distance, class score, agreement and variance ratio for few samples; {} if `stop()` is true."""
        labels = balanced_labels(self._settings.quick_samples, self.num_classes)
        fake = self._collect(draw(sample, labels, self._settings.seed), len(labels), stop)
        if fake is None:
            return {}
        return {
            "frechet": frechet_distance(moments_of(self._real[part].features), fake.moments),
            "score": class_score(fake.logits, splits=1, seed=self._settings.seed).mean,
            "agreement": agreement(fake.logits, labels),
            "within_class_variance": self._variance_ratio(fake, labels),
        }

    def report(self, sample: Sampler, untrained: Sampler | None = None) -> Report:
        """All scores, see `Scorer`."""
        seed, held_out = self._settings.seed, self._held_out
        labels = balanced_labels(self._settings.samples, self.num_classes)
        kept = Kept(draw(sample, labels, seed))
        fake = self._collect(kept, len(labels))
        images = kept.images()
        scores = compare(collection_of(held_out), fake, subsets=_SUBSETS, seed=seed)
        held_out_moments = moments_of(held_out.features)
        scores["frechet"]["floor"] = frechet_distance(
            moments_of(self._real["train"].features), held_out_moments
        )
        if untrained is not None:
            ceiling = self._collect(draw(untrained, labels, seed), len(labels))
            scores["frechet"]["ceiling"] = frechet_distance(held_out_moments, ceiling.moments)
        names = Names.of(self._classifier.network, _NOUNS.get(self._data.name, self._data.name))
        scores |= {
            "names": names._asdict(),
            "agreement": agreement(fake.logits, labels),
            "within_class_variance": self._variance_ratio(fake, labels),
            "nearest_training": self._nearest_training(images),
            "real": {
                "score": class_score(held_out.logits, seed=seed).mean,
                "agreement": agreement(held_out.logits, self._held_out_labels),
            },
            **self._about(),
        }
        return Report(scores, images, labels[: len(images)])

    def _about(self) -> dict[str, Any]:
        network, name = self._classifier.network, self._data.name
        reference = f"validation and test part of {name}, which trained neither network"
        return network.identity() | {"reference": reference, "network_accuracy": self._classifier.accuracy}

    def _collect(self, images, count, stop=lambda: False) -> Collection | None:
        found = collect(self._embed, images, count, stop=stop, most_kept=count)
        if found is None:
            return None
        return collection_of(self._standardized(Embedded(found.features, found.logits)))

    def _variance_ratio(self, fake: Collection, labels: np.ndarray) -> float:
        real = within_class_variance(self._held_out.features, self._held_out_labels)
        return within_class_variance(fake.features, labels) / real

    def _nearest_training(self, images: np.ndarray) -> dict[str, float]:
        """Median distances to the nearest training image. One far below the held-out one means memorized."""
        training = self._data.train.images
        held_out = np.concatenate([getattr(self._data, part).images for part in _HELD_OUT])
        found = {"value": images, "held_out": held_out}
        return {name: float(np.median(nearest(each, training))) for name, each in found.items()}


def agreement(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the samples that the classifier takes for the class that was asked for."""
    return float(np.mean(np.argmax(logits, -1) == labels))


def within_class_variance(features: np.ndarray, labels: np.ndarray) -> float:
    """Trace of the covariance within a class, the mean over the classes. 0 means one image for each class."""
    traces = [features[labels == label].var(0).sum() for label in np.unique(labels)]
    return float(np.mean(traces))


def nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance of each image to its nearest among others, root mean square of grey levels, `[N]`."""
    x, y = (each.reshape(len(each), -1) for each in (images, others))
    squares = np.concatenate([rows.min(1) for rows in squared_distances(x, y)])
    return np.sqrt(squares / x.shape[1])
