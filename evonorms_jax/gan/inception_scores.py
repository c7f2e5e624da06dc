"""FID, Inception score and their kin against the statistics of real images. N samples, D features."""

import os
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from evonorms_jax.data import DataSettings, load_images, open_stream
from evonorms_jax.errors import UserError
from evonorms_jax.gan import inception_weights, store
from evonorms_jax.gan.collection import Collection, collect
from evonorms_jax.gan.features import Embedder, FeatureNetwork, inception_network
from evonorms_jax.gan.frechet import Moments, frechet_distance
from evonorms_jax.gan.sampling import Sampler
from evonorms_jax.gan.scores import class_score
from evonorms_jax.gan.scoring import Kept, Names, Report, ScoreSettings, balanced_labels, compare, draw
from evonorms_jax.runs.files import absolute

_SUBSETS = 100
_READ = 256  # real images at a time


class RealImages:
    """The images of one part of a data set, held in memory or streamed, each host reading all of them."""

    def __init__(self, settings: DataSettings, part: str):
        """Opens the data. Errors are those of `load_images` and `open_stream`."""
        self._part = part
        if settings.stream:
            self._stream = open_stream(settings)
            self.name, self.num_classes = self._stream.name, self._stream.num_classes
            self.count, side = self._stream.sizes[part], self._stream.eval_size
        else:
            data = load_images(settings, with_test=True)
            self._stream, self._images = None, getattr(data, part).images
            self.name, self.num_classes = data.name, data.num_classes
            self.count, side = len(self._images), self._images.shape[1]
        self.title = f"{self.name}, {part} part, {self.count} images, side {side}"

    def __iter__(self) -> Iterator[np.ndarray]:
        if self._stream is None:
            starts = range(0, self.count, _READ)
            yield from (self._images[start : start + _READ] for start in starts)
            return
        for images, _, weights in self._stream.eval_batches(self._part, _READ):
            yield images[weights > 0]


def open_network(settings: ScoreSettings) -> FeatureNetwork:
    """The Inception network of the settings.

    Raises `ValueError` if there are no weights, or not its weights.
    """
    path = settings.weights or os.environ.get(inception_weights.VARIABLE, "")
    if not path:
        raise UserError(inception_weights.ADVICE)
    return inception_network(inception_weights.load(path), settings.resize)


def load_reference(
    embed: Embedder, real: RealImages, settings: ScoreSettings
) -> tuple[Collection, dict[str, str]]:
    """The statistics of the real images and their record, from a file, which is made on first use.

    Raises `ValueError` if the file is damaged, or its network or convention is another one.
    """
    identity = embed.network.identity()
    if settings.reference:
        path, expected = absolute(settings.reference), identity
    else:
        expected = identity | {"images": real.title}
        folder = absolute(settings.cache)
        name = "-".join([*real.title.replace(",", "").split(), settings.resize, embed.network.crc])
        path = folder / f"reference-{name.replace('/', '_').replace(':', '_')}.npz"
        if not path.exists():
            logging.info("collecting the features of %s, once, in %s", real.title, path)
            found = collect(embed, real, real.count)
            arrays = {"features": found.features, **found.moments._asdict()}
            store.save(path, {name: np.asarray(values) for name, values in arrays.items()}, expected)
    arrays, about = store.load(path, expected)
    moments = Moments(int(arrays["count"]), arrays["mean"], arrays["covariance"])
    return Collection(moments, arrays["features"], np.zeros((0, 0), np.float32)), about


class InceptionScorer:
    """Scores samplers by the Inception network, against all images of a part of the data."""

    def __init__(self, network: FeatureNetwork, real: RealImages, settings: ScoreSettings):
        """Loads or makes the statistics of the real images. Errors are those of `load_reference`."""
        self.num_classes, self._settings = real.num_classes, settings
        self._embed = Embedder(network, settings.batch_size)
        self._real, self._about = load_reference(self._embed, real, settings)

    def evaluate(self, sample: Sampler, part: str, stop: Callable[[], bool]) -> dict[str, float]:
        """Distance and class score for few samples; {} if `stop()` is true, and for the test part.

        The reference is the same for all parts, and the report at the end draws more samples.
        """
        if part == "test":
            return {}
        labels = balanced_labels(self._settings.quick_samples, self.num_classes)
        fake = collect(self._embed, draw(sample, labels, self._settings.seed), len(labels), stop=stop)
        if fake is None:
            return {}
        score = class_score(fake.logits, splits=1, seed=self._settings.seed)
        return {"frechet": frechet_distance(self._real.moments, fake.moments), "score": score.mean}

    def report(self, sample: Sampler, untrained: Sampler | None = None) -> Report:
        """All scores, see `Scorer`."""
        labels = balanced_labels(self._settings.samples, self.num_classes)
        kept = Kept(draw(sample, labels, self._settings.seed))
        fake = collect(self._embed, kept, len(labels))
        scores = compare(self._real, fake, subsets=_SUBSETS, seed=self._settings.seed)
        if untrained is not None:
            ceiling = collect(self._embed, draw(untrained, labels, self._settings.seed), len(labels))
            scores["frechet"]["ceiling"] = frechet_distance(self._real.moments, ceiling.moments)
        names = Names.of(self._embed.network, "image")
        about = self._embed.network.identity() | {"reference": self._about["images"]}
        images = kept.images()
        return Report(scores | {"names": names._asdict()} | about, images, labels[: len(images)])
