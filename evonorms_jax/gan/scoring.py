"""Scores of a generator: the samples drawn from it, their comparison with real images, and the names.

N samples, K classes, P x P pixels, C channels. A scorer knows the real images and draws from any sampler.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.gan.collection import Collection
from evonorms_jax.gan.features import INCEPTION, FeatureNetwork
from evonorms_jax.gan.frechet import frechet_distance, sample_floor
from evonorms_jax.gan.sampling import Sampler
from evonorms_jax.gan.scores import class_score, kernel_distance, precision_recall

#: The ways to score, see `ScoreSettings`.
NETWORKS = ("classifier", "inception")
#: The name of no network, for a training without scores.
NO_SCORES = "none"
_CHUNK = 1000  # images drawn at a time
_MOST_STORED = 5000  # images of a report
_MOST_BYTES = 2**26  # of the images of a report
_MOST_COMPARED = 10_000  # samples among which nearest neighbours are looked for


class ScoreSettings(NamedTuple):
    """The group `scores` of a config.

    Attributes:
      network: "classifier" for one that the project trains itself, "inception" for FID and its kin, or "none"
        for a training without scores.
      recipe: config file of the classifier.
      cache: folder of classifiers and of statistics of real images, which are made once.
      weights: file with the weights of the Inception network; "" takes the environment's.
      resize: how Inception's input is made, see `resize.py`.
      reference: file with statistics of real images; "" makes them from `part` of the data.
      part: part of the data that Inception's scores compare with.
      samples: N of the scores at the end.
      quick_samples: N of the scores during a training.
      batch_size: images that the network sees at a time.
      seed: seed of the samples, the splits and the subsets.
    """

    network: str = "classifier"
    recipe: str = "experiments/configs/digit_classifier.py"
    cache: str = "~/.cache/evonorms_jax/scores"
    weights: str = ""
    resize: str = "tf1"
    reference: str = ""
    part: str = "test"
    samples: int = 5000
    quick_samples: int = 1000
    batch_size: int = 64
    seed: int = 0


class Report(NamedTuple):
    """The scores of a generator, and images to look at."""

    scores: dict[str, Any]  # content for JSON
    images: np.ndarray  # uint8 [n, P, P, C], the first of those that were scored
    labels: np.ndarray  # int32 [n]


class Scorer(Protocol):
    """Scores samplers against the real images that it holds."""

    num_classes: int

    def evaluate(self, sample: Sampler, part: str, stop: Callable[[], bool]) -> dict[str, float]:
        """Quick scores during a training, `frechet` among them; {} if `stop()` turned true.

        The part names the real images, "validation" or "test", where the scorer tells them apart.
        """

    def report(self, sample: Sampler, untrained: Sampler | None = None) -> Report:
        """All scores. The untrained generator's distance is the ceiling beside the trained one's."""


class Names(NamedTuple):
    """The names of the scores that a network gives. Only the Inception network of 2015 gives an FID."""

    frechet: str
    score: str
    kernel: str

    @classmethod
    def of(cls, network: FeatureNetwork, noun: str) -> "Names":
        """The names for a network; `noun` is the kind of images that another network knows."""
        if network.name == INCEPTION:
            return cls("FID", "Inception score", "KID")
        return cls(f"{noun} Frechet distance", f"{noun} score", f"{noun} kernel distance")


def balanced_labels(count: int, num_classes: int) -> np.ndarray:
    """int32 `[N]`, the classes in turn, so that every part of the samples has all of them."""
    return (np.arange(count) % num_classes).astype(np.int32)


def draw(sample: Sampler, labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Images of the labels, uint8 `[n, P, P, C]`, in parts with seeds of their own.

    Images `[N, P, P, C]` of a large N need not fit into memory. The parts do not depend on any batch size.
    """
    for place, start in enumerate(range(0, len(labels), _CHUNK)):
        part_seed = int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
        yield sample(labels[start : start + _CHUNK], part_seed)


class Kept:
    """Remembers the first images that pass through."""

    def __init__(self, images: Iterator[np.ndarray]):
        """Takes parts of images, `[n, P, P, C]` each."""
        self._parts, self._kept, self._room = images, [], _MOST_STORED

    def __iter__(self) -> Iterator[np.ndarray]:
        for part in self._parts:
            if not self._kept:
                self._room = min(self._room, max(1, _MOST_BYTES // part[0].nbytes))
            self._kept.append(part[: self._room])
            self._room -= len(self._kept[-1])
            yield part

    def images(self) -> np.ndarray:
        """The first images, at most 5,000 and 64 MB."""
        return np.concatenate(self._kept)


def compare(real: Collection, fake: Collection, *, subsets: int, seed: int) -> dict[str, Any]:
    """The scores that any network gives: distance, class score, kernel distance, precision and recall.

    Args:
      real: features of the real images.
      fake: features of the samples.
      subsets: pairs of subsets of the kernel distance.
      seed: seed of splits and subsets.
    """
    score = class_score(fake.logits, seed=seed)
    sets = {"real": real.features, "fake": fake.features}
    kernel = kernel_distance(**sets, subsets=subsets, seed=seed)
    overlap = precision_recall(**{name: values[:_MOST_COMPARED] for name, values in sets.items()})
    distance = frechet_distance(real.moments, fake.moments)
    floor = sample_floor(real.moments.covariance, real.moments.count, fake.moments.count)
    return {
        "frechet": {"value": distance, "floor": floor},
        "score": score.mean,
        "score_deviation": score.deviation,
        "kernel_distance": {"value": kernel.mean, "deviation": kernel.deviation},
        "precision": overlap.precision,
        "recall": overlap.recall,
        "samples": fake.moments.count,
        "real_images": real.moments.count,
    }


def check_settings(settings: ScoreSettings) -> None:
    """Raises `ValueError` for an unknown network."""
    if settings.network not in NETWORKS:
        names = ", ".join([*NETWORKS, NO_SCORES])
        raise UserError(f"scores.network must be one of {names}, got {settings.network!r}")


def inception_changes(path: str | None) -> dict[str, Any]:
    """The changes of a config, by dotted key, that score by the Inception network; {} without its weights."""
    return {"scores.network": "inception", "scores.weights": path} if path else {}


def lines(scores: Mapping[str, Any]) -> list[str]:
    """The main scores of a report in words, for a terminal."""
    names, frechet = scores["names"], scores["frechet"]
    bounds = [f"{name} {frechet[name]:.3g}" for name in ("floor", "ceiling") if name in frechet]
    shown = [f"{names['frechet']} {frechet['value']:.3g} ({', '.join(bounds)})"]
    shown.append(f"{names['score']} {scores['score']:.2f} ± {scores['score_deviation']:.2f}")
    kernel = scores["kernel_distance"]
    shown.append(f"{names['kernel']} {kernel['value']:.4f} ± {kernel['deviation']:.4f}")
    shares = ("agreement", "precision", "recall")
    shown += [f"{name} {100 * scores[name]:.1f} %" for name in shares if name in scores]
    return shown
