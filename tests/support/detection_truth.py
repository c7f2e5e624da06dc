"""Evaluation of a detector that knows the truth, in this process or as one of several hosts.

As a program it prints box AP, mask AP and the number of results that this host has collected:

  python -m support.detection_truth SETTINGS ADDRESS PROCESS
"""

import json
import sys

import jax
import numpy as np

from evonorms_jax.data import Share
from evonorms_jax.detection import coco
from evonorms_jax.detection.annotations import images_of
from evonorms_jax.detection.evaluation import Evaluator
from evonorms_jax.detection.mask_targets import crop_masks
from evonorms_jax.detection.objects import fill_slots
from evonorms_jax.detection.placement import whole
from evonorms_jax.detection.settings import CocoSettings
from evonorms_jax.detection.types import DETECTED_MASK_SIDE, Detections
from evonorms_jax.training.mesh import data_mesh, put_batch


def never():
    return False


class Oracle:
    """A detector that returns the annotated objects of the images it is shown, in the order of a part."""

    def __init__(self, stream, part, side, mesh, batch_size, slots=12):
        self.mesh, self.found = mesh, {}
        for image in images_of(stream.truth(part).content, stream.categories):
            placed = whole(image.height, image.width, side)
            boxes, classes, masks, valid = fill_slots(image.objects, placed, slots)
            cropped = np.asarray(crop_masks(masks, boxes, boxes, DETECTED_MASK_SIDE))
            scores = np.linspace(0.9, 0.6, slots, dtype=np.float32)
            self.found[image.id] = Detections(boxes, scores, classes, cropped, valid)
        self.queue = [batch.image_ids for batch in stream.eval_batches(part, batch_size)]

    def __call__(self, state, images, sizes):
        assert images.shape[0] == sizes.shape[0] and isinstance(images, jax.Array)
        found = [self.found[int(number)] for number in self.queue.pop(0)]
        return put_batch(self.mesh, Detections(*(np.stack(values) for values in zip(*found, strict=True))))


def evaluated(settings, batch_size=4, mesh=None, share=Share()):
    """The evaluator of the validation part, and the metrics that it returns."""
    mesh = data_mesh(jax.devices()[:2]) if mesh is None else mesh
    stream = coco.open_coco(settings, share=share)
    oracle = Oracle(stream, "validation", settings.canvas, mesh, batch_size)
    evaluator = Evaluator(oracle, stream, mesh, batch_size, threads=2)
    return evaluator, evaluator.evaluate(None, "validation", never)


if __name__ == "__main__":
    jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
    fields = CocoSettings(**json.loads(sys.argv[1]))
    evaluator, metrics = evaluated(fields, 6, data_mesh(), Share(jax.process_index(), 2))
    print(json.dumps([metrics["box_AP"], metrics["mask_AP"], len(evaluator._last.results)]))
