"""Average precision of results against annotations, by pycocotools, without its texts.

T IoU thresholds from 0.50 to 0.95, R recalls from 0 to 1, K categories.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from evonorms_jax.detection.annotations import Categories, Json

#: Kind of a score to the key of pycocotools and the key of results that it must not see.
KINDS = {"box": ("bbox", "segmentation"), "mask": ("segm", "bbox")}
SUMMARY = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # the first six numbers of COCO's summary


class Precision(NamedTuple):
    """Precision by recall of all categories, NaN for a category without an annotated object."""

    thresholds: np.ndarray  # [T], IoU
    recalls: np.ndarray  # [R]
    precisions: np.ndarray  # [T, R, K]


class Score(NamedTuple):
    """Score of results of one kind, with the curves that it is the mean of."""

    summary: Json  # of `SUMMARY`, and `classes`. It is None for a number without any annotated object
    precision: Precision


def open_truth(content: Mapping[str, Any]) -> COCO:
    """The annotations of a part for `score`. They are not changed."""
    truth = COCO()
    # The evaluation writes into annotations.
    annotations = [dict(each) for each in content["annotations"]]
    truth.dataset = {**content, "annotations": annotations}
    with _silent():
        truth.createIndex()
    return truth


def score(truth: COCO, results: Sequence[Json], categories: Categories) -> dict[str, Score]:
    """Box and mask average precision of results, by kind.

    All annotated images count, also those without a result. Crowds are ignored as COCO does: a detection on
    one is neither right nor wrong. A mask's size is its own area, not that of its box.

    Args:
        truth: annotations of the part.
        results: entries of COCO's results format, ordered by image and score.
        categories: categories of the data.
    """
    return {
        kind: _score(truth, _without(results, hidden), categories, name)
        for kind, (name, hidden) in KINDS.items()
    }


def _without(results: Sequence[Json], key: str) -> list[Json]:
    return [{name: value for name, value in each.items() if name != key} for each in results]


def _score(truth: COCO, results: list[Json], categories: Categories, name: str) -> Score:
    with _silent():
        # pycocotools does not load an empty list.
        found = truth.loadRes(results) if results else _nothing(truth)
        evaluation = COCOeval(truth, found, name)
        evaluation.params.imgIds = sorted(truth.getImgIds())
        evaluation.params.catIds = list(categories.ids)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # [T, R, K, sizes, numbers of detections]: objects of all sizes, up to 100 detections of an image
    precisions = evaluation.eval["precision"][:, :, :, 0, -1]
    precisions = np.where(precisions < 0, np.nan, precisions)  # -1 stands for a category without an object
    summary = {key: _number(value) for key, value in zip(SUMMARY, evaluation.stats, strict=False)}
    summary["classes"] = {
        title: None if np.isnan(curves).all() else float(curves.mean())
        for title, curves in zip(categories.names, np.moveaxis(precisions, -1, 0), strict=True)
    }
    params = evaluation.params
    return Score(summary, Precision(params.iouThrs, params.recThrs, precisions))


def _nothing(truth: COCO) -> COCO:
    found = COCO()
    found.dataset = {**truth.dataset, "annotations": []}
    found.createIndex()
    return found


def _number(value: float) -> float | None:
    return None if value < 0 else float(value)


def _silent() -> contextlib.AbstractContextManager:
    return contextlib.redirect_stdout(io.StringIO())
