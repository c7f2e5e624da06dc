"""Evaluation of a detector: detections of a part on the devices, masks on host threads, scores, files.

B batch size, b = B / hosts the images of a batch that one host gets.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from PIL import Image

from evonorms_jax.data.photographs import DamagedPictureError
from evonorms_jax.detection import illustrations, scores
from evonorms_jax.detection.annotations import Json
from evonorms_jax.detection.coco import CocoStream
from evonorms_jax.detection.paste import ordered, results_of
from evonorms_jax.detection.scores import Score
from evonorms_jax.detection.types import Detections, EvaluationBatch
from evonorms_jax.packages import require_matplotlib
from evonorms_jax.runs.files import write_png, write_whole
from evonorms_jax.training.mesh import local_rows, put_batch

DETECTIONS, SCORES = "detections.json", "scores.json"
PICTURES, CURVES = "detections.png", "precision_recall"
SHOWN_SCORE = 0.5  # least score of a detection in a picture
_SHOWN_IMAGES = 6
_MOST_PENDING = (
    2  # batches whose masks may wait for threads: the detections of COCO's 5,000 images have 1.5 GB
)
_INTERVAL = 10.0  # seconds between two lines of progress

#: `(state, images [B, P, P, 3], sizes [B, 2]) -> Detections`, arrays on the mesh.
Detect = Callable[[Any, jax.Array, jax.Array], Detections]


class Evaluated(NamedTuple):
    """The results of the last part that was evaluated, on every host."""

    part: str
    results: list[Json]
    scores: dict[str, Score]


class Evaluator:
    """Evaluates the states of one detector. `evaluate` and `illustrate` are those of a task."""

    def __init__(self, detect: Detect, stream: CocoStream, mesh: Mesh, batch_size: int, threads: int):
        """Takes the functions and the data of one detector.

        Args:
            detect: jitted function of a state, images and sizes.
            stream: data of the detector.
            mesh: devices of the detector.
            batch_size: B.
            threads: threads of this host that make masks.
        """
        require_matplotlib()
        self._detect, self._stream, self._mesh = detect, stream, mesh
        self._batch_size, self._threads = batch_size, threads
        self._last: Evaluated | None = None

    def evaluate(self, state: Any, part: str, stop: Callable[[], bool]) -> dict[str, float]:
        """Box and mask AP of a part, such as `box_AP50`, without those for which no object is annotated.

        {} if the part is empty, or `stop()` turned true on the hosts, which all call this together.
        """
        if not self._stream.sizes[part]:
            return {}
        own = self._results(state, part, stop)
        if own is None:
            return {}
        truth = scores.open_truth(self._stream.truth(part).content)
        results = ordered(_gather(own))
        found = scores.score(truth, results, self._stream.categories)
        self._last = Evaluated(part, results, found)
        return {
            f"{kind}_{name}": value
            for kind, each in found.items()
            for name, value in each.summary.items()
            if name in scores.SUMMARY and value is not None
        }

    def _results(self, state: Any, part: str, stop: Callable[[], bool]) -> list[Json] | None:
        """This host's results, or None if the hosts are to stop."""
        results: list[Json] = []
        pending: deque[list[Future]] = deque()
        total, begun = -(-self._stream.sizes[part] // self._batch_size), time.monotonic()
        with ThreadPoolExecutor(self._threads) as pool:
            for number, batch in enumerate(self._stream.eval_batches(part, self._batch_size)):
                if stop():
                    pool.shutdown(cancel_futures=True)
                    return None
                found = self._detect(state, *put_batch(self._mesh, (batch.images, batch.sizes)))
                # The masks of earlier batches are made while this waits for the devices.
                pending.append([pool.submit(*each) for each in self._jobs(batch, local_rows(found))])
                if len(pending) > _MOST_PENDING:
                    results += _finished(pending.popleft())
                if time.monotonic() - begun > _INTERVAL:
                    begun = time.monotonic()
                    logging.info("%s part: batch %d of %d is evaluated", part, number + 1, total)
            return results + [entry for each in pending for entry in _finished(each)]

    def _jobs(self, batch: EvaluationBatch, found: Detections) -> Iterator[tuple]:
        ids = self._stream.categories.id_of()
        for place in np.flatnonzero(batch.weights):
            image = Detections(*(values[place] for values in found))
            size = tuple(map(int, batch.original_sizes[place]))
            yield results_of, image, int(batch.image_ids[place]), batch.scales[place], size, ids

    def illustrate(self, state: Any, workdir: epath.Path) -> None:
        """Process 0 writes scores, results and pictures of the part that was evaluated last."""
        from evonorms_jax.detection import precision_recall  # loads matplotlib

        if self._last is None or jax.process_index():
            return
        part, results, found = self._last
        summary = {kind: each.summary for kind, each in found.items()}
        step = {"step": int(state.step), "part": part}
        write_whole(workdir / SCORES, json.dumps(step | summary, indent=1) + "\n")
        write_whole(workdir / DETECTIONS, json.dumps(results) + "\n")
        write_png(workdir / PICTURES, self._picture(part, results))
        precisions = {kind: each.precision for kind, each in found.items()}
        for kind, content in precision_recall.draw(precisions, self._stream.categories.names).items():
            write_whole(workdir / f"{CURVES}.{kind}", content)

    def _picture(self, part: str, results: list[Json]) -> Image.Image:
        """Annotated objects above detections of the first images that are not damaged."""
        content, folder = self._stream.truth(part)
        columns = []
        for image in sorted(content["images"], key=lambda image: image["id"]):
            if len(columns) == _SHOWN_IMAGES:
                break
            try:
                pixels = illustrations.open_image(folder / image["file_name"])
            except DamagedPictureError:
                continue
            objects = [each for each in content["annotations"] if each["image_id"] == image["id"]]
            shown = [
                each for each in results if each["image_id"] == image["id"] and each["score"] >= SHOWN_SCORE
            ]
            titles = ("annotated", f"detected, score at least {SHOWN_SCORE}")
            both = [
                illustrations.draw(pixels, entries, self._stream.categories, title)
                for entries, title in zip((objects, shown), titles, strict=True)
            ]
            columns.append(illustrations.below(both))
        return illustrations.beside(columns)


def _finished(jobs: list[Future]) -> list[Json]:
    return [entry for each in jobs for entry in each.result()]


def _gather(own: list[Json]) -> list[Json]:
    """The results of all hosts."""
    if jax.process_count() == 1:
        return own
    # Arrays of one size are all that the hosts can exchange.
    content = np.frombuffer(json.dumps(own).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(len(content)))
    padded = np.pad(content, (0, int(sizes.max()) - len(content)))
    everyone = multihost_utils.process_allgather(padded)
    return [
        entry
        for row, size in zip(everyone, sizes.tolist(), strict=True)
        for entry in json.loads(row[:size].tobytes())
    ]
