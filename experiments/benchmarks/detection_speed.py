"""The training step of the digit recipe's Mask R-CNN beside torchvision's, on the CPU, in one run.

  python -m experiments.benchmarks.detection_speed
  python -m experiments.benchmarks.detection_speed --batch_size=2 --rounds=5

A step is one update of all parameters with AdamW, warm-up and clipped gradients, at the settings of
`experiments/configs/detect_digits.py` with BN-ReLU. The rate is constant after the warm-up. Both sides have
the same digit scenes on the same canvas, as many anchors of the same sizes at each level, and the same
numbers of proposals and of sampled anchors and regions. The scenes are in memory as uint8 before the first
step, so the input pipeline is not timed. Each step scales its pixels.

The baseline is `experiments/benchmarks/torch_mask_rcnn.py`: torchvision's `MaskRCNN`, which runs eagerly, on
a backbone and heads with the widths and the norms of ours. Every part has as many parameters as ours. These
differences remain:

- torchvision's mask head runs on the sampled regions that are positive. Ours always runs on
  `sampling.positive_regions` regions of an image. So torchvision's time depends on the objects and on the
  state of the training. Both sides are timed in the first steps of a training.
- torchvision pads strided convolutions at both ends. Its anchors are centred on the corners of pixels and
  have whole sides. Its RoIAlign has the features there too. Its box loss has another beta. Kernels have other
  random values at the start.
- torchvision receives the whole canvas as an image. Ours knows the filling beside the image.
- Our step also computes the metrics of its log.

Both sides have a thread for each core and take turns round by round, so that other load on the machine
affects both. The first steps, which build the program, are not timed. The time of a round is the mean over
its steps. The median, the least and the largest time of the rounds are reported.

It needs PyTorch and torchvision (`pip install torch torchvision`), and the packages of the digit scenes
(`pip install ".[coco,demo]"`). Writes detection_speed.json into the work directory.
"""

import contextlib
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from absl import flags as absl_flags
from ml_collections import ConfigDict
from rich.table import Table

from evonorms_jax.detection.anchors import RATIOS
from evonorms_jax.detection.annotations import Categories
from evonorms_jax.detection.coco import open_coco
from evonorms_jax.detection.detector import BACKBONES, BOX_BINS, MASK_BINS, DetectorSettings
from evonorms_jax.detection.settings import CocoSettings
from evonorms_jax.detection.task import make_programs
from evonorms_jax.detection.types import TrainingBatch
from evonorms_jax.packages import require
from evonorms_jax.training.mesh import data_mesh, put_batch
from experiments import flags
from experiments.benchmarks import results, turns
from experiments.configs import detect_digits

OURS, THEIRS = "evonorms_jax", "torchvision"
#: Our losses by the names of torchvision.
LOSSES = {
    "loss_objectness": "proposal_score_loss",
    "loss_rpn_box_reg": "proposal_box_loss",
    "loss_classifier": "class_loss",
    "loss_box_reg": "box_loss",
    "loss_mask": "mask_loss",
}

FLAGS = absl_flags.FLAGS
_SETTINGS = ("batches", "steps", "rounds", "warmup")


def define_flags() -> None:
    """Defines the flags of this main. A function, so that tests can import the file."""
    flags.define_counts(
        ("batch_size", 8, "Images of a step."),
        ("batches", 4, "Number of different batches, which repeat in their order."),
        ("steps", 4, "Number of steps in a round. With a multiple of batches all rounds have the same ones."),
        ("rounds", 11, "Number of timed rounds of each side."),
        ("warmup", 4, "Number of steps of each side before the first round."),
    )
    flags.define_results()


def main(argv):
    """Measures, prints the table, and writes the results."""
    del argv
    config = detect_digits.get_config()
    config.batch_size = FLAGS.batch_size
    measured = measure(config, {name: FLAGS[name].value for name in _SETTINGS})
    results.publish(FLAGS.workdir, "detection_speed.json", measured, table(measured))


def measure(config: ConfigDict, settings: Mapping[str, int]) -> dict[str, Any]:
    """Times the steps of both sides.

    Args:
      config: config with the keys of `experiments/configs/detect_digits.py`, with batch norms in all parts
        and a ResNet of basic blocks. A constant rate replaces the schedule after the warm-up.
      settings: values of the flags `batches`, `steps`, `rounds` and `warmup` by name.

    Returns:
      A JSON object with the machine, the settings, the number of parameters by side and part, and one row
      for each side, ours first. Times are in milliseconds. The ratio is the time of a step to that of ours.
      Losses are those of the last step.

    Raises:
      ModuleNotFoundError: if PyTorch, torchvision or a package of the digit scenes is not installed.
      UserError: if a setting does not fit.
      FloatingPointError: if a loss is not finite.
    """
    torch_mask_rcnn = import_baseline()
    config = config.copy_and_resolve_references()
    config.optimizer.schedule = "constant"
    categories, batches = read_scenes(config, settings["batches"])
    sides = {
        OURS: _Jax(config, categories, batches),
        THEIRS: _Torch(torch_mask_rcnn, config, categories, batches),
    }
    timed = turns.time_by_turns(sides, **{name: settings[name] for name in ("warmup", "rounds", "steps")})
    scenes = {"batch_size": config.batch_size, "canvas": config.data.canvas}
    return {
        "machine": results.machine() | torch_mask_rcnn.VERSIONS,
        "settings": scenes | dict(settings),
        "parameters": {name: side.parameters for name, side in sides.items()},
        "rows": [
            row | {"images_per_second": 1e3 * config.batch_size / row["milliseconds"]}
            for row in turns.rows(timed)
        ],
    }


def import_baseline() -> ModuleType:
    """The module of the baseline. Raises `ModuleNotFoundError` if PyTorch or torchvision is not installed."""
    require(("torch", "torchvision"), "the baseline", install="torch torchvision")
    from experiments.benchmarks import torch_mask_rcnn

    return torch_mask_rcnn


def read_scenes(config: ConfigDict, count: int) -> tuple[Categories, list[TrainingBatch]]:
    """The categories and the first `count` training batches of a few digit scenes, always the same.

    The scenes are those of the recipe's seed. They are made in a folder that is removed afterwards.
    """
    with tempfile.TemporaryDirectory() as folder:
        scenes = {"train_size": count * config.batch_size, "validation_size": 1, "test_size": 1}
        settings = CocoSettings(**config.data.to_dict() | scenes | {"data_dir": folder})
        stream = open_coco(settings, order_seed=config.seed)
        with contextlib.closing(stream.train_batches(config.batch_size)) as batches:
            return stream.categories, list(itertools.islice(batches, count))


class _Jax:
    """Our training, as `experiments.detect` runs it, on the CPU as one device: a `turns.Side`."""

    parameters: dict[str, int]  # by part

    def __init__(self, config: ConfigDict, categories: Categories, batches: Sequence[TrainingBatch]):
        mesh = data_mesh(jax.devices("cpu")[:1], groups=1)
        programs = make_programs(config, categories, len(batches) * config.batch_size, mesh)
        init_key, self._key = jax.random.split(jax.random.key(config.seed))
        self._step, self._state = programs.train_step, programs.init(init_key)
        self._batches = itertools.cycle([put_batch(mesh, batch) for batch in batches])
        self.parameters = turns.count_parameters(self._state.params)

    def run(self, steps: int) -> dict[str, float]:
        for batch in itertools.islice(self._batches, steps):
            self._state, metrics = self._step(self._state, batch, self._key)
        jax.block_until_ready((self._state, metrics))
        return {name: float(metrics[name]) for name in LOSSES.values()}


class _Torch:
    """The training of the baseline: a `turns.Side`."""

    parameters: dict[str, int]  # by part

    def __init__(
        self,
        module: ModuleType,
        config: ConfigDict,
        categories: Categories,
        batches: Sequence[TrainingBatch],
    ):
        torch = module.torch
        torch.set_num_threads(flags.cores())
        torch.manual_seed(config.seed)
        architecture = module.Architecture(**architecture_of(config, categories.num_classes + 1))
        detector = module.make_mask_rcnn(architecture, config.data.canvas, selection_of(config))
        optimizer = config.optimizer
        self._training = module.Training(
            detector,
            rate=optimizer.learning_rate,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
            warmup_steps=optimizer.warmup_steps,
            clip_norm=optimizer.clip_norm,
        )
        self._batches = itertools.cycle([_torch_batch(module, batch) for batch in batches])
        self.parameters = module.count_parameters(detector)

    def run(self, steps: int) -> dict[str, float]:
        for images, targets in itertools.islice(self._batches, steps):
            losses = self._training.step(images, targets)
        return {ours: float(losses[theirs]) for theirs, ours in LOSSES.items()}


def architecture_of(config: ConfigDict, outputs: int) -> dict[str, Any]:
    """The fields of the baseline's `Architecture` for the detector of a config.

    Args:
      config: config with the keys of `experiments/configs/detect_digits.py`.
      outputs: number of classes with background.
    """
    settings, backbone = DetectorSettings(**config.model), BACKBONES[config.model.name].keywords
    return {
        "stem": backbone["stem_features"],
        "stages": [(stage.width, stage.blocks, stage.stride) for stage in backbone["stages"]],
        "features": settings.features,
        "outputs": outputs,
        "box_convs": settings.box_convs * (settings.features,),
        "box_dense": settings.box_dense * (settings.box_dense_features,),
        "mask_convs": settings.mask_convs * (settings.mask_features,),
        "mask_features": settings.mask_features,
        "anchor_sides": [settings.anchor_size * 2**level for level in settings.all_levels()],
        "anchor_ratios": [1 / ratio for ratio in RATIOS],
        "bins": (BOX_BINS, MASK_BINS),
        "sampling_ratio": config.roi_align.sampling_ratio,
        "canonical_side": config.roi_align.canonical_side,
    }


def selection_of(config: ConfigDict) -> dict[str, Any]:
    """The numbers of proposals and samples of a config, as keywords of torchvision's `MaskRCNN`."""
    proposals, sampling = config.proposals, config.sampling
    return {
        "rpn_pre_nms_top_n_train": proposals.train_candidates,
        "rpn_post_nms_top_n_train": proposals.count,
        "rpn_nms_thresh": proposals.threshold,
        "rpn_batch_size_per_image": sampling.anchors,
        "rpn_positive_fraction": sampling.positive_anchors / sampling.anchors,
        "box_batch_size_per_image": sampling.regions,
        "box_positive_fraction": sampling.positive_regions / sampling.regions,
    }


def _torch_batch(module: ModuleType, batch: TrainingBatch) -> tuple[Any, list[Any]]:
    """Images uint8 `[B, 3, P, P]` and the objects of each image."""
    images = module.torch.from_numpy(batch.images).permute(0, 3, 1, 2).contiguous()
    side, targets = batch.images.shape[1], []
    for boxes, classes, masks, valid in zip(*batch[2:], strict=True):
        whole = [canvas_mask(mask, box, side) for mask, box in zip(masks[valid], boxes[valid], strict=True)]
        shown = np.array(whole, bool).reshape(-1, side, side)  # also without an object
        targets.append(module.make_target(boxes[valid], classes[valid], shown))
    return images, targets


def canvas_mask(mask: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """The mask of an object on the canvas, bool `[P, P]`.

    Args:
      mask: uint8 `[S, S]`, pixels of the box.
      box: float `[4]`, (y0, x0, y1, x1) in pixels of the canvas.
      side: P.
    """
    from evonorms_jax.detection.paste import paste  # loads pycocotools, which the scenes need too

    region, top, left = paste(mask.astype(np.float64), box.astype(np.float64), (side, side))
    whole = np.zeros((side, side), bool)
    whole[top : top + region.shape[0], left : left + region.shape[1]] = region
    return whole


def table(measured: dict[str, Any]) -> Table:
    """The rows for people."""
    libraries = "torch {torch}, torchvision {torchvision}".format(**measured["machine"])
    title = "Mask R-CNN, {batch_size} images of {canvas} pixels a step".format(**measured["settings"])
    shown = Table(title=f"{title}\n{libraries}")
    for column in ("side", "parameters", "ms a step", "least to largest", "images/s", "x ours"):
        shown.add_column(column, justify="left" if column == "side" else "right")
    for row in measured["rows"]:
        count = sum(measured["parameters"][row["side"]].values())
        spread = f"{row['least']:.1f} to {row['largest']:.1f}"
        speed = f"{row['milliseconds']:.1f}", spread, f"{row['images_per_second']:.1f}"
        shown.add_row(row["side"], f"{count:,}", *speed, f"{row['ratio']:.2f}")
    return shown


if __name__ == "__main__":
    define_flags()
    flags.run(main, holds="workdir")
