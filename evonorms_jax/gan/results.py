"""The end of a training of a generator: its scores, samples and sheets in the work directory."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.gan import sheets
from evonorms_jax.gan.construction import networks_of
from evonorms_jax.gan.sampling import SamplingSettings, draw_latents, make_renderer, make_sampler
from evonorms_jax.gan.scorers import make_scorer
from evonorms_jax.gan.scoring import NO_SCORES
from evonorms_jax.runs import provenance
from evonorms_jax.runs.files import absolute, write_whole
from evonorms_jax.training import loop
from evonorms_jax.training.evaluation import Opened, open_checkpoint
from evonorms_jax.training.task import Builder

SCORES, SAMPLES = "scores.json", "samples.npz"
SHEET = "samples.png"
#: The name of this kind of training in a config's `task`.
TASK = "gan"
_INTERPOLATED_ROWS = 16


def train(config: ConfigDict, workdir: epath.PathLike, build: Builder) -> dict[str, Any]:
    """Trains or resumes, then scores the best checkpoint, and returns the scores.

    The work directory gets the files of `loop.train` and those of `score`. One that has its scores is left
    unchanged. Arguments and errors are those of `loop.train`. Without a network for scores they are {}.
    """
    loop.train(config, workdir, build)
    if config.scores.network == NO_SCORES:
        return {}
    path = absolute(workdir) / SCORES
    return json.loads(path.read_text()) if path.exists() else score(workdir, build)


def score(
    workdir: epath.PathLike,
    build: Builder,
    *,
    best: bool = True,
    changes: Mapping[str, Any] | None = None,
    extra: bool = False,
) -> dict[str, Any]:
    """Scores a checkpoint and writes `scores.json`, `samples.npz` and `samples.png`.

    Args:
      workdir: work directory of a training.
      build: builder of the task.
      best: whether to take the checkpoint of least distance instead of the newest.
      changes: other values of the config's groups `data`, `scores` and `sampling`, by dotted key.
      extra: whether these scores come after those at the end of the training, and so into
        `scores-CHECKPOINT-NETWORK.json` without samples.

    Returns:
      The content of the file of scores.

    Raises:
      ValueError: as `open_checkpoint` and `make_scorer`.
    """
    opened = _open(workdir, build, best, changes or {})
    config, workdir = opened.config, absolute(workdir)
    scorer = make_scorer(config)
    sample = make_sampler(config, opened.state)
    report = scorer.report(sample, make_sampler(config, opened.task.init()))
    checkpoint = "best" if best else "newest"
    scores = report.scores | {
        "step": opened.step,
        "checkpoint": checkpoint,
        "truncation": SamplingSettings(**config.sampling).describe(),
        "hardware": provenance.hardware() | {"jax": provenance.versions()["jax"]},
        "date": provenance.now().date().isoformat(),
    }
    written = json.dumps(scores, indent=1) + "\n"
    if extra and jax.process_index() == 0:
        write_whole(workdir / f"scores-{checkpoint}-{config.scores.network}.json", written)
    if extra:
        return scores
    sheet = sheets.class_sheet(sample, scorer.num_classes, config.scores.seed)
    if jax.process_index() == 0:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, images=report.images, labels=report.labels)
        write_whole(workdir / SAMPLES, buffer.getvalue())
        sheets.write_sheet(workdir / SHEET, sheet)
        write_whole(workdir / SCORES, written)
    return scores


class SheetSettings(NamedTuple):
    """The sheets to draw.

    Attributes:
      seed: seed of the latents.
      columns: samples of a class.
      truncations: values of the sweep; without any there is no sweep.
    """

    seed: int = 0
    columns: int = sheets.COLUMNS
    truncations: Sequence[float] = ()


def draw_sheets(
    workdir: epath.PathLike,
    build: Builder,
    settings: SheetSettings,
    *,
    best: bool,
    changes: Mapping[str, Any],
) -> list[epath.Path]:
    """Draws samples by class, three interpolations and the sweep of a checkpoint into `WORKDIR/sheets`.

    Arguments and errors are those of `score`. Returns the paths of the pictures, whose names tell the
    truncation.
    """
    # A machine that draws need not have the networks of the scores.
    opened = _open(workdir, build, best, {"scores.network": NO_SCORES, **changes})
    config, seed = opened.config, settings.seed
    sampling = SamplingSettings(**config.sampling)
    render = make_renderer(config, opened.state)
    sample = make_sampler(config, opened.state)
    generator = networks_of(config, opened.state.params).generator
    classes = generator.num_classes
    latents = draw_latents(seed, 2 * min(classes, _INTERPOLATED_ROWS), generator.latent, sampling)
    drawn = {"classes": sheets.class_sheet(sample, classes, seed, settings.columns)}
    for name, sheet in sheets.interpolations(render, latents, classes, seed).items():
        drawn[f"interpolation-{name}"] = sheet
    kind = sampling.describe().replace(" ", "-")
    drawn = {f"{name}-{kind}": sheet for name, sheet in drawn.items()}
    if settings.truncations:
        samplers = {value: _truncated(opened, value) for value in settings.truncations}
        values = "-".join(f"{value:g}" for value in settings.truncations)
        sweep = sheets.truncation_sheet(samplers, classes, seed)
        drawn[f"truncation-{sampling.method}-{values}"] = sweep
    folder = absolute(workdir) / sheets.FOLDER
    paths = [folder / f"{name}.png" for name in drawn]
    if jax.process_index() == 0:
        folder.mkdir(exist_ok=True)
        for path, sheet in zip(paths, drawn.values(), strict=True):
            sheets.write_sheet(path, sheet)
    return paths


def _truncated(opened: Opened, truncation: float):
    """A sampler with another truncation, and the standing statistics of that one."""
    config = opened.config.copy_and_resolve_references()
    config.sampling.truncation = truncation
    return make_sampler(config, opened.state)


def _open(workdir, build, best, changes) -> Opened:
    def changed(config, devices=None):
        if config.get("task") != TASK:
            raise UserError(f"{absolute(workdir)} is no work directory of a generator")
        with config.unlocked():
            config.update_from_flattened_dict(dict(changes))
        return build(config, devices)

    return open_checkpoint(workdir, best=best, build=changed)
