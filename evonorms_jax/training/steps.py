"""Loss, accuracy and steps of the training of a classifier: pure functions, jitted over a mesh.

B batch size, P side of an image, C channels, K classes. A step works on A parts of the batch one after the
other. Each part has G groups of b images with batch statistics of their own, so B = A G b.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from evonorms_jax.data import normalize
from evonorms_jax.errors import UserError
from evonorms_jax.search_space.target import building_for, looping
from evonorms_jax.training.mesh import grouped, put_batch, replicated


class TrainState(NamedTuple):
    """The variables of a training."""

    step: jax.Array  # int32 scalar: steps done
    params: Any
    batch_stats: Any  # moving statistics; {} for a layer without them
    opt_state: Any
    average: Any  # {"params", "batch_stats"} averaged over steps; {} if no average is kept


class Images(NamedTuple):
    """The facts about the images that a model and its input depend on."""

    shape: tuple[int, int, int]  # [P, P, C] in evaluation
    num_classes: int  # K
    mean: np.ndarray  # float32 [C], in grey levels
    std: np.ndarray  # float32 [C], in grey levels


class StepSettings(NamedTuple):
    """How a step uses its batch. The fields are keys of the config.

    Attributes:
      statistics_batch: images that share batch statistics, b, by default the whole batch. In the published
        trainings the images of a device share them. The result does not depend on the number of devices.
      accumulate: number of parts A that a step works on one after the other, to save memory. It changes only
        the order of sums.
      label_smoothing: share s of the label that is spread evenly over all classes.
      mixup: alpha of Beta(alpha, alpha), from which the share of an image is drawn in its mixture with its
        neighbor in the batch (Zhang et al. 2018, arXiv 1710.09412); 0 turns it off.
      average_decay: decay of the moving average of parameters and statistics that is evaluated; 0 turns it
        off. At step t it is at most (1 + t) / (10 + t), so that the start is soon forgotten.
    """

    statistics_batch: int | None = None
    accumulate: int = 1
    label_smoothing: float = 0.0
    mixup: float = 0.0
    average_decay: float = 0.0

    def groups(self, batch_size: int) -> int:
        """G. Raises `ValueError` if the batch cannot be divided evenly, or a setting is out of range."""
        for name in ("label_smoothing", "average_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.mixup < 0 or (self.mixup and batch_size % 2):
            raise UserError(
                "mixup must be at least 0, and takes images in pairs: got "
                f"mixup={self.mixup} and batch_size={batch_size}"
            )
        group = self.statistics_batch or batch_size
        if self.accumulate < 1 or group < 1 or batch_size % (group * self.accumulate):
            hint = "" if self.statistics_batch else "; without statistics_batch it must be 1"
            raise UserError(
                f"batch_size must be a multiple of statistics_batch x accumulate, {group} x "
                f"{self.accumulate}, got {batch_size}{hint}"
            )
        return batch_size // (group * self.accumulate)


# -- Loss and accuracy, of the proxy task too


def one_hot(labels: jax.Array, num_classes: int) -> jax.Array:
    """int `[B]` to float32 `[B, K]`, also where 64-bit numbers are the default."""
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-sum_k t_k log softmax(logits)_k: `[B, K]` and target probabilities `[B, K]` to `[B]`."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), -1)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the largest logit is the label's: `[B, K]` and `[B]` to bool `[B]`; not for NaN or infinity.

    The finiteness is tested since the argmax of NaNs is class 0, the label of some images.
    """
    return (jnp.argmax(logits, -1) == labels) & jnp.all(jnp.isfinite(logits), -1)


# -- Steps


Metrics = dict[str, jax.Array]  # scalars by name


def make_init(
    model: nn.Module, optimizer: optax.GradientTransformation, images: Images, mesh: Mesh, *, average: bool
) -> Callable[[jax.Array], TrainState]:
    """Builds `init(key) -> TrainState` for the state before the first step. It consumes the key."""

    def init(key):
        with building_on(mesh):
            variables = model.init(key, jnp.zeros((1, *images.shape), jnp.float32), train=False)
        params, stats = variables["params"], variables.get("batch_stats", {})
        kept = {"params": params, "batch_stats": stats} if average else {}
        return TrainState(jnp.int32(0), params, stats, optimizer.init(params), kept)

    return jax.jit(init, out_shardings=replicated(mesh))


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    images: Images,
    mesh: Mesh,
    settings: StepSettings = StepSettings(),
) -> Callable[[TrainState, tuple[jax.Array, jax.Array], jax.Array], tuple[TrainState, Metrics]]:
    """Builds `train_step(state, (images, labels), key) -> (state, metrics)`.

    Images are uint8 `[B, P, P, C]`, labels int32 `[B]`. The key is that of the whole training. The number of
    the step is folded into it, so that a training can be resumed at any step. The state given is donated.
    Metrics are the loss (cross-entropy with smoothed labels, without weight decay), the accuracy on the
    step's own batch, and the norm of the gradient.
    """

    gradient_of = _make_gradient(model)

    def train_step(state, batch, key):
        mix_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        pixels, labels = batch
        x = normalize(pixels, images.mean, images.std)
        targets = one_hot(labels, images.num_classes)
        if settings.mixup:
            x, targets = _mix(mix_key, settings.mixup, x, targets)
        targets = optax.smooth_labels(targets, settings.label_smoothing)
        parts = cut((x, targets, labels), settings, mesh)
        # Every part starts from the same moving statistics, as every device does.
        run = functools.partial(gradient_of, state.params, state.batch_stats, dropout_key)
        with building_on(mesh):
            loss, accuracy, stats, gradient = mean_over_parts(run, parts)
        change, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, change)
        average = _averaged(state, params, stats, settings.average_decay)
        # The loss is that of the old parameters; a gradient that is finite means that the new ones are, too.
        metrics = {"loss": loss, "accuracy": accuracy, "gradient_norm": optax.tree.norm(gradient)}
        return TrainState(state.step + 1, params, stats, opt_state, average), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


def _make_gradient(model: nn.Module):
    """Builds `of_part(params, stats, key, part)` for a step."""

    def loss_of(params, stats, x, targets, labels, key):
        variables = {"params": params, "batch_stats": stats}
        logits, updated = model.apply(
            variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": key}
        )
        loss = jnp.mean(cross_entropy(logits, targets))
        return loss, (jnp.mean(correct(logits, labels)), updated.get("batch_stats", {}))

    def of_part(params, stats, key, part):
        """Loss, accuracy, moving statistics and gradient of a part `[G, b, ...]`, means over G."""
        pixels, targets, labels, numbers = part

        def mean_loss(params):
            keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
            each = jax.vmap(loss_of, in_axes=(None, None, 0, 0, 0, 0))
            return _mean(each(params, stats, pixels, targets, labels, keys))

        (loss, (accuracy, stats)), gradient = jax.value_and_grad(mean_loss, has_aux=True)(params)
        return loss, accuracy, stats, gradient

    return of_part


def make_sums(model: nn.Module, images: Images, mesh: Mesh) -> Callable[..., dict[str, jax.Array]]:
    """Builds `sums(variables, (images, labels, weights)) -> {"loss", "accuracy", "images"}`, weighted sums.

    They use whole images, the moving statistics and no label smoothing.
    """

    @jax.jit
    def sums(variables, batch):
        pixels, labels, weights = batch
        with building_on(mesh):
            logits = model.apply(variables, normalize(pixels, images.mean, images.std), train=False)
        loss = cross_entropy(logits, one_hot(labels, images.num_classes))
        each = {"loss": loss, "accuracy": correct(logits, labels), "images": 1.0}
        return {name: jnp.sum(values * weights) for name, values in each.items()}

    return sums


def evaluated_variables(state: TrainState) -> dict[str, Any]:
    """The variables to evaluate with: the averaged ones if an average is kept."""
    return state.average or {"params": state.params, "batch_stats": state.batch_stats}


@contextlib.contextmanager
def building_on(mesh: Mesh) -> Iterator[None]:
    """A context in which programs without a loop around them are traced for the devices of a mesh."""
    with building_for(mesh.devices.flat[0].platform), looping(False):
        yield


def make_evaluate(model: nn.Module, images: Images, mesh: Mesh) -> Callable[..., dict[str, float]]:
    """Builds `evaluate(state, batches, stop) -> {"loss", "accuracy"}`: means over all images.

    Batches are (images, labels, weights), each host's own share. Evaluation uses whole images, the moving
    statistics, the averaged parameters if an average is kept, and no label smoothing. `stop()` is asked
    before every batch. If it returns true, or without any batch, the result is {}.
    """
    sums = make_sums(model, images, mesh)

    def evaluate(state, batches, stop=lambda: False):
        variables = evaluated_variables(state)
        totals = {"loss": 0.0, "accuracy": 0.0, "images": 0.0}
        for batch in batches:
            if stop():
                return {}
            # Fetched one by one: CPU devices can deadlock over collectives that the host does not wait for.
            part = jax.device_get(sums(variables, put_batch(mesh, batch)))
            totals = {name: totals[name] + float(part[name]) for name in totals}
        count = totals.pop("images")
        return {name: total / count for name, total in totals.items()} if count else {}

    return evaluate


def _mean(tree):
    return jax.tree.map(lambda leaf: jnp.mean(leaf, 0), tree)


def mean_over_parts(run, parts):
    """The mean of `run(part)` over parts `[A, ...]`, one after the other."""
    count = len(jax.tree.leaves(parts)[0])
    if count == 1:
        return run(jax.tree.map(lambda leaf: leaf[0], parts))

    def add(total, part):
        with looping(True):
            return jax.tree.map(jnp.add, total, run(part)), None

    shapes = jax.eval_shape(run, jax.tree.map(lambda leaf: leaf[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda leaf: leaf / count, total)


def _mix(key, alpha, x, targets):
    """Mixes neighbors of a batch, whose order is random, in one proportion for all pairs."""
    share = jax.random.beta(key, alpha, alpha, dtype=jnp.float32)

    def mixed(values):
        pairs = values.reshape(-1, 2, *values.shape[1:])
        return (share * pairs + (1 - share) * pairs[:, ::-1]).reshape(values.shape)

    return mixed(x), mixed(targets)


def cut(batch, settings: StepSettings, mesh: Mesh):
    """Divides `[B, ...]` into parts `[A, G, b, ...]`; also gives the number of each group `[A, G]`."""
    groups = settings.groups(len(batch[0]))
    parts = settings.accumulate

    def divided(values):
        # Groups vary slowest in the batch, so that every part has images of every device.
        values = values.reshape(groups, parts, -1, *values.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(values, grouped(mesh, axis=1))

    numbers = jnp.arange(groups * parts).reshape(groups, parts).T
    return *map(divided, batch), numbers


def _averaged(state: TrainState, params, stats, decay: float):
    if not decay:
        return {}
    done = state.step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + done) / (10 + done))
    new = {"params": params, "batch_stats": stats}
    return jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, state.average, new)
