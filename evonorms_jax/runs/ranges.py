"""The range of every number in every config, in one table for all mains.

Mains check their config against it before anything expensive starts. A number without an entry here is found
by `tests/runs/ranges_test.py`.
"""

import functools
import math
import numbers
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from evonorms_jax.errors import UserError

_INT32 = 2**31  # devices count in int32


class Range(NamedTuple):
    """Finite numbers from `least` up to `below`, without NaN and Booleans."""

    least: float
    below: float = math.inf  # infinity admits any finite number, or any int32 if `whole`
    closed: bool = False  # whether `below` belongs to the range
    open: bool = False  # whether `least` does not belong to the range
    whole: bool = False  # whether only whole numbers belong to the range

    def holds(self, value: Any) -> bool:
        """Whether the value is a number of the range."""
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind) or not self._fits(value):
            return False
        above = value > self.least if self.open else value >= self.least
        return above and (value < self.below or (self.closed and value == self.below))

    def _fits(self, value: float) -> bool:
        return not (self.whole and math.isinf(self.below)) or value < _INT32

    def describe(self, value: Any) -> str:
        """The constraint that a value outside of the range violates."""
        if isinstance(value, numbers.Integral) and not self._fits(value):
            return f"below {_INT32}"
        if value == self.below == math.inf:
            return "finite"
        if self.closed and not self.open:
            return f"from {self.least} to {self.below}"
        lower = f"above {self.least}" if self.open else f"at least {self.least}"
        upper = f" and at most {self.below}" if self.closed else f" and below {self.below}"
        return lower + ("" if math.isinf(self.below) else upper)


SEED = Range(0, 2**32, whole=True)
COUNT = Range(1, whole=True)
INDEX = Range(0, whole=True)  # whole numbers that may be 0
AMOUNT = Range(0)
POSITIVE = Range(0, open=True)
SHARE = Range(0, 1)
PROBABILITY = Range(0, 1, closed=True)
SIDE = Range(1, 4096, closed=True, whole=True)  # of square images, in pixels
THREADS = Range(1, 4096, closed=True, whole=True)
PROCESSES = Range(0, 4096, closed=True, whole=True)

_LAYER = {
    "layer.groups": COUNT,
    "layer.group_size": COUNT,
    "layer.epsilon": AMOUNT,
    "layer.momentum": SHARE,
}
_IMAGES_AND_LAYER = _LAYER | {
    "data.seed": SEED,
    "data.train_size": COUNT,
    "data.validation_size": INDEX,
    "data.image_size": SIDE,
    "data.crop": SIDE,
}
_SEARCH_BUT_SEED = _IMAGES_AND_LAYER | {
    "budget": COUNT,
    "device_steps": COUNT,
    "checkpoint_every": COUNT,
    "top_k": COUNT,
    "rerank_replicas": INDEX,
    "search_space.num_nodes": COUNT,
    "proxy.steps": COUNT,
    "proxy.batch_size": COUNT,
    "proxy.learning_rate": POSITIVE,
    "proxy.warmup_steps": INDEX,
    "proxy.init_scale": POSITIVE,
    "proxy.momentum": SHARE,
    "proxy.weight_decay": AMOUNT,
    "proxy.replicas": COUNT,
    "proxy.eval_batch_size": COUNT,
    "rejection.quality_steps": COUNT,
    "rejection.quality_threshold": AMOUNT,
    "rejection.hurdle_steps": INDEX,
    "rejection.hurdle_threshold": AMOUNT,
    "rejection.stability_steps": INDEX,
    "rejection.stability_norm": POSITIVE,
    "rejection.stability_step_size": AMOUNT,
    "rejection.stability_batch_size": COUNT,
    "evolution.population_size": COUNT,
    "evolution.initial_population": INDEX,
    "evolution.tournament_fraction": PROBABILITY,
    "evolution.mutations": COUNT,
    "evolution.random_probability": PROBABILITY,
    "evolution.round_size": COUNT,
}
_TRAINING = {
    "seed": SEED,
    "steps": COUNT,
    "batch_size": COUNT,
    "eval_batch_size": COUNT,
    "statistics_batch": COUNT,
    "accumulate": COUNT,
    "log_every": COUNT,
    "eval_every": COUNT,
    "checkpoint_every": COUNT,
    "data.threads": THREADS,
    "data.workers": PROCESSES,
}
_AUGMENTATION = {"data.randaugment.layers": INDEX, "data.randaugment.magnitude": AMOUNT}
_OPTIMIZER = {
    "optimizer.learning_rate": AMOUNT,
    "optimizer.reference_batch": COUNT,
    "optimizer.momentum": SHARE,
    "optimizer.weight_decay": AMOUNT,
    "optimizer.warmup_steps": INDEX,
    "optimizer.warmup_epochs": AMOUNT,
    "optimizer.clip_norm": POSITIVE,
}
#: By kind of config, then by dotted key. Where a value is a tuple, the range holds for each of its numbers.
RANGES: dict[str, dict[str, Range]] = {
    "search": _SEARCH_BUT_SEED | {"seed": SEED},
    "comparison": _SEARCH_BUT_SEED
    | {
        "seeds": SEED,
        "reranking.top": COUNT,
        "reranking.steps": COUNT,
        "reranking.seeds": SEED,
        "retraining.steps": COUNT,
        "retraining.seeds": SEED,
    },
    "training": _TRAINING
    | _IMAGES_AND_LAYER
    | _AUGMENTATION
    | _OPTIMIZER
    | {
        "epochs": POSITIVE,
        "label_smoothing": SHARE,
        "mixup": AMOUNT,
        "average_decay": SHARE,
        "model.width": Range(0, 100, closed=True, open=True),
        "model.dropout_rate": SHARE,
        "model.drop_connect_rate": SHARE,
    },
    "detection": _TRAINING
    | _LAYER
    | _OPTIMIZER
    | {
        "epochs": POSITIVE,
        "model.levels": Range(1, 12, closed=True, whole=True),
        "model.features": COUNT,
        "model.anchor_size": POSITIVE,
        "model.box_convs": INDEX,
        "model.box_dense": INDEX,
        "model.box_dense_features": COUNT,
        "model.mask_convs": INDEX,
        "model.mask_features": COUNT,
        "model.outputs": Range(2, whole=True),
        "data.seed": SEED,
        "data.train_size": COUNT,
        "data.validation_size": COUNT,
        "data.test_size": COUNT,
        "data.canvas": SIDE,
        "data.slots": COUNT,
        "data.scale": POSITIVE,
        "proposals.train_candidates": COUNT,
        "proposals.test_candidates": COUNT,
        "proposals.count": COUNT,
        "proposals.threshold": PROBABILITY,
        "sampling.anchors": COUNT,
        "sampling.positive_anchors": COUNT,
        "sampling.regions": COUNT,
        "sampling.positive_regions": COUNT,
        "roi_align.sampling_ratio": COUNT,
        "roi_align.canonical_side": POSITIVE,
        "roi_align.chunk": COUNT,
        "detections.least_score": SHARE,
        "detections.candidates": COUNT,
        "detections.threshold": PROBABILITY,
        "detections.count": COUNT,
        "optimizer.drops": PROBABILITY,
    },
    "gan": _TRAINING
    | _IMAGES_AND_LAYER
    | _AUGMENTATION
    | {
        "discriminator_steps": Range(1, 64, closed=True, whole=True),
        "orthogonal": AMOUNT,
        "shift": Range(0, 4096, whole=True),
        "average_decay": SHARE,
        "average_start": INDEX,
        "networks.width": COUNT,
        "networks.latent": COUNT,
        "networks.embedding": COUNT,
        "networks.embedding_scale": POSITIVE,
        "adam.generator_rate": AMOUNT,
        "adam.discriminator_rate": AMOUNT,
        "adam.b1": SHARE,
        "adam.b2": SHARE,
        "adam.epsilon": POSITIVE,
        "sampling.truncation": POSITIVE,
        "sampling.batch_size": COUNT,
        "sampling.statistics_batches": COUNT,
        "scores.samples": COUNT,
        "scores.quick_samples": COUNT,
        "scores.batch_size": COUNT,
        "scores.seed": SEED,
    },
    "table": {"seeds": SEED, "batches": COUNT, "workers": COUNT},
    "reranking": {"seed": SEED, "top": COUNT, "best": COUNT},
}


def check_ranges(config: Mapping[str, Any], kind: str) -> None:
    """Raises `ValueError` at the first number of a config, nested mappings, that is missing or out of range.

    `kind` is a key of `RANGES`. None is not a number.
    """
    for key, allowed in RANGES[kind].items():
        try:
            value = functools.reduce(operator.getitem, key.split("."), config)
        except (KeyError, TypeError):
            raise UserError(f"the config has no {key}: another version of this package wrote it") from None
        for number in value if isinstance(value, (tuple, list)) else (value,):
            if number is not None and not allowed.holds(number):
                raise UserError(f"{key} must be {allowed.describe(number)}, got {number!r}")
