"""The task of a generator: from a config to pure functions, bound to their data and keys."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.gan import sheets
from evonorms_jax.gan.adversarial import (
    AdamSettings,
    AdversarialSettings,
    GanState,
    make_init,
    make_train_step,
)
from evonorms_jax.gan.construction import build_networks
from evonorms_jax.gan.judging import make_mean_logit
from evonorms_jax.gan.labels import check_all_labels, check_drawn_labels
from evonorms_jax.gan.networks import Networks
from evonorms_jax.gan.sampling import SamplingSettings, check_truncation, make_sampler
from evonorms_jax.gan.scorers import make_scorer
from evonorms_jax.gan.scoring import NO_SCORES, Scorer
from evonorms_jax.runs.ranges import check_ranges
from evonorms_jax.training.classification import make_feed, make_mesh, shapes_on
from evonorms_jax.training.feed import Feed
from evonorms_jax.training.mesh import local_rows, replicated, split
from evonorms_jax.training.steps import Metrics
from evonorms_jax.training.task import MAY_DIFFER, Criterion, Task

#: Sizes of batches that are only looked at, and places of files.
_MAY_DIFFER = ("sampling.batch_size", "scores.batch_size", "scores.cache", "scores.weights")


def build_task(config: ConfigDict, devices: list[jax.Device] | None = None) -> Task:
    """The task of a config; traced once, so that a config that cannot be trained fails here.

    Args:
      config: config with the keys of `experiments/configs/gan_digits.py`.
      devices: devices to train on, by default all devices of all hosts.

    Raises:
      ValueError: if a setting is out of range or unknown, or the data cannot be read or lack classes.
      DataNotFoundError: if the data are missing.
    """
    check_ranges(config, "gan")
    check_truncation(SamplingSettings(**config.sampling))
    mesh = make_mesh(config, devices)
    init_key, train_key, data_key = jax.random.split(jax.random.key(config.seed), 3)
    feed = _make_feed(config, data_key, mesh)
    side, _, channels = feed.images.shape
    if side != config.data.crop:
        raise UserError(
            f"data.image_size must equal data.crop, {config.data.crop}, since held-out images are judged "
            f"whole; the images of {feed.name} have side {side}"
        )
    programs = make_programs(config, feed.images.num_classes, channels, mesh)
    jax.eval_shape(programs.train_step, programs.state, programs.batch, train_key)
    # Its classifier trains at once, before the display of this training is shown.
    scorer = None if config.scores.network == NO_SCORES else make_scorer(config)
    return Task(
        init=functools.partial(programs.init, init_key),
        train_step=functools.partial(programs.train_step, key=train_key),
        batches=feed.batches,
        evaluate=_make_evaluate(config, programs.networks, feed, mesh, scorer),
        learning_rate=optax.constant_schedule(config.adam.generator_rate),
        target=programs.state,
        steps=config.steps,
        about=[("networks", config.networks.name), ("layer", config.layer.spec), ("data", feed.name)],
        criterion=Criterion("frechet", largest=False),
        illustrate=functools.partial(_illustrate, config, programs.networks.generator.num_classes),
        may_differ=(*MAY_DIFFER, *_MAY_DIFFER),
    )


class Programs(NamedTuple):
    """The jitted functions of a training, with the shapes and shardings of their arguments."""

    networks: Networks
    init: Callable[[jax.Array], GanState]
    train_step: Callable[..., tuple[GanState, Metrics]]
    state: GanState  # shapes
    batch: tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]  # images and labels of a step


def make_programs(config: ConfigDict, num_classes: int, channels: int, mesh: Mesh) -> Programs:
    """The functions of a training, independent of its images; errors as `build_task`.

    Args:
      config: config with the keys of `experiments/configs/gan_digits.py`.
      num_classes: number of classes.
      channels: channels of the images.
      mesh: devices of the training. They may exist for a compiler only.
    """
    networks = build_networks(config, num_classes, channels)
    optimizers, settings = AdamSettings(**config.adam).make(), _step_settings(config)
    side = config.data.crop
    init = make_init(networks, optimizers, side, mesh)
    step = make_train_step(networks, optimizers, mesh, settings)
    pixels = (_images_of_step(config), side, side, channels)
    batch = jax.ShapeDtypeStruct(pixels, jnp.uint8), jax.ShapeDtypeStruct(pixels[:1], jnp.int32)
    state = jax.eval_shape(init, jax.random.key(0))
    return Programs(networks, init, step, shapes_on(state, replicated(mesh)), shapes_on(batch, split(mesh)))


def _step_settings(config: ConfigDict) -> AdversarialSettings:
    return AdversarialSettings(**{name: config[name] for name in AdversarialSettings._fields})


def _images_of_step(config: ConfigDict) -> int:
    """Real images of a step: a batch for each step of the discriminator."""
    return config.batch_size * config.discriminator_steps


def _make_feed(config: ConfigDict, key: jax.Array, mesh: Mesh) -> Feed:
    """The images of `config.data`, held on the devices or streamed, with their labels checked."""

    def check(data):
        check_all_labels(data.train.labels, data.num_classes, data.name)

    feed = make_feed(config, key, mesh, batch_size=_images_of_step(config), check=check)
    return feed._replace(batches=functools.partial(_checked, feed)) if config.data.stream else feed


def _checked(feed: Feed, start: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """The batches of a stream, with the labels of the first one checked."""
    for number, (images, labels) in enumerate(feed.batches(start)):
        if number == 0:
            check_drawn_labels(local_rows(labels), feed.images.num_classes, feed.name)
        yield images, labels


def _make_evaluate(
    config: ConfigDict, networks: Networks, feed: Feed, mesh: Mesh, scorer: Scorer | None
) -> Callable[..., Any]:
    """Builds `evaluate(state, part, stop)`: the quick scores, and the logit of the part's real images."""
    mean_logit = make_mean_logit(networks.discriminator, mesh)

    def evaluate(state, part, stop):
        logit = mean_logit(state, feed.evaluation(part), stop)
        if logit is None or scorer is None:
            return {} if logit is None else {"logit": logit}
        return {"logit": logit} | scorer.evaluate(make_sampler(config, state), part, stop)

    return evaluate


def _illustrate(config: ConfigDict, num_classes: int, state: GanState, workdir: epath.Path) -> None:
    """Writes a sheet of samples, from the same latents at every step."""
    sheet = sheets.class_sheet(make_sampler(config, state), num_classes, config.scores.seed)
    if jax.process_index() == 0:
        folder = workdir / sheets.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        sheets.write_sheet(folder / f"step-{int(state.step):06}.png", sheet)
