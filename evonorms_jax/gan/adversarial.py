"""The training step of a generator and its discriminator: pure functions, jitted over a mesh.

Brock et al. 2019 (arXiv 1809.11096), section 3 and appendix C. A step trains the discriminator S times, each
on a batch of its own, and then the generator once.

B batch size, P side of an image, C channels, K classes, Z size of a latent. A step works on A parts of each
batch one after the other. A part has G groups of b images with batch statistics of their own, so B = A G b.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from evonorms_jax.errors import UserError
from evonorms_jax.gan import losses, spectral
from evonorms_jax.gan.networks import Networks
from evonorms_jax.gan.shifts import draw_shifts, shift
from evonorms_jax.training.mesh import grouped, replicated
from evonorms_jax.training.steps import Metrics, StepSettings, building_on, mean_over_parts

#: Names of the networks in the parts of a state.
GENERATOR, DISCRIMINATOR = "generator", "discriminator"
_SATURATED = 0.99  # the least absolute value of a pixel that counts as black or white


class GanState(NamedTuple):
    """The variables of a training. There are no moving statistics: sampling accumulates its own."""

    step: jax.Array  # int32 scalar: steps done
    params: Any  # by network
    spectral: Any  # vectors of the power iterations, by network
    opt_state: Any  # by network
    average: Any  # moving average of the generator's parameters


class AdversarialSettings(NamedTuple):
    """How a step uses its batch. The fields are keys of the config.

    Attributes:
      discriminator_steps: steps S of the discriminator for one of the generator.
      statistics_batch: images that share batch statistics, b, by default the whole batch.
      accumulate: number of parts A that are worked on one after the other, to save memory. It changes only
        the order of sums: every part starts from the same vectors of the power iterations.
      orthogonal: factor of the orthogonal regularization of the generator; 0 turns it off.
      shift: most pixels by which real and generated images are shifted at random; 0 turns it off.
      average_decay: decay of the moving average of the generator's parameters.
      average_start: steps during which the average is a copy of the parameters.
    """

    discriminator_steps: int = 2
    statistics_batch: int | None = None
    accumulate: int = 1
    orthogonal: float = 0.0
    shift: int = 0
    average_decay: float = 0.9999
    average_start: int = 20_000

    def groups(self, batch_size: int) -> int:
        """G. Raises `ValueError` if the batch cannot be divided evenly, or a setting is out of range."""
        if self.discriminator_steps < 1:
            raise UserError(f"discriminator_steps must be at least 1, got {self.discriminator_steps}")
        return StepSettings(self.statistics_batch, self.accumulate).groups(batch_size)


class AdamSettings(NamedTuple):
    """The two Adam optimizers, with constant rates. The fields are the keys of `config.adam`."""

    generator_rate: float = 5e-5
    discriminator_rate: float = 2e-4
    b1: float = 0.0
    b2: float = 0.999
    epsilon: float = 1e-6

    def make(self) -> dict[str, optax.GradientTransformation]:
        """The optimizers by network."""
        rates = {GENERATOR: self.generator_rate, DISCRIMINATOR: self.discriminator_rate}
        moments = {"b1": self.b1, "b2": self.b2, "eps": self.epsilon}
        return {name: optax.adam(rate, **moments) for name, rate in rates.items()}


def scale_pixels(images: jax.Array) -> jax.Array:
    """uint8 to float32 from -1 to 1, the range of the generator."""
    return images.astype(jnp.float32) / 127.5 - 1


def make_init(
    networks: Networks, optimizers: dict[str, optax.GradientTransformation], size: int, mesh: Mesh
) -> Callable[[jax.Array], GanState]:
    """Builds `init(key) -> GanState` for images of side `size`. It consumes the key."""
    generator, discriminator = networks
    z, labels = jnp.zeros((1, generator.latent)), jnp.zeros(1, jnp.int32)
    image = jnp.zeros((1, size, size, generator.channels))

    def init(key):
        keys = jax.random.split(key)
        with building_on(mesh):
            variables = {
                GENERATOR: generator.init(keys[0], z, labels, train=False),
                DISCRIMINATOR: discriminator.init(keys[1], image, labels),
            }
        params, vectors = (
            {name: variables[name][collection] for name in variables}
            for collection in ("params", spectral.COLLECTION)
        )
        opt_state = {name: optimizers[name].init(params[name]) for name in params}
        return GanState(jnp.int32(0), params, vectors, opt_state, params[GENERATOR])

    return jax.jit(init, out_shardings=replicated(mesh))


def make_train_step(
    networks: Networks,
    optimizers: dict[str, optax.GradientTransformation],
    mesh: Mesh,
    settings: AdversarialSettings,
) -> Callable[[GanState, tuple[jax.Array, jax.Array], jax.Array], tuple[GanState, Metrics]]:
    """Builds `train_step(state, (images, labels), key) -> (state, metrics)`.

    Images are uint8 `[S B, P, P, C]`, labels int32 `[S B]`. The key is that of the whole training. The number
    of the step is folded into it, so that a training can be resumed at any step. The state given is donated.
    Metrics are the losses, mean logits and gradient norms, and signals of a collapse: the share of black and
    white pixels, the variance within classes relative to real images, and the largest singular value of the
    generator's first weights.
    """
    gradients = _Gradients(networks, settings)
    classes, latent = networks.generator.num_classes, networks.generator.latent

    def train_step(state, batch, key):
        size = len(batch[0]) // settings.discriminator_steps
        cut = functools.partial(_cut, groups=settings.groups(size), parts=settings.accumulate, mesh=mesh)
        real = tuple(cut(values, steps=settings.discriminator_steps) for values in batch)
        keys = jax.random.split(jax.random.fold_in(key, state.step), settings.discriminator_steps + 1)
        draws = [
            jax.tree.map(lambda values: cut(values)[0], _draw(one, size, latent, classes, settings.shift))
            for one in keys
        ]
        each = []
        with building_on(mesh):
            for number, drawn in enumerate(draws[:-1]):
                parts = *(values[number] for values in real), drawn
                found = mean_over_parts(functools.partial(gradients.of_discriminator, state), parts)
                state, norm = _update(state, optimizers, DISCRIMINATOR, found)
                each.append(found.metrics | {"discriminator_gradient_norm": norm})
            found = mean_over_parts(functools.partial(gradients.of_generator, state), draws[-1])
            if settings.orthogonal:
                found = found._replace(
                    gradient=_add_orthogonality(state, found.gradient, settings.orthogonal)
                )
            state, norm = _update(state, optimizers, GENERATOR, found)
        metrics = {name: sum(one[name] for one in each) / len(each) for name in each[0]}
        metrics |= found.metrics | {"generator_gradient_norm": norm, "sigma": _first_sigma(state)}
        return state._replace(step=state.step + 1, average=_averaged(state, settings)), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


class _Draw(NamedTuple):
    """Random numbers for one use of a batch."""

    latents: jax.Array  # [B, Z]
    labels: jax.Array  # int32 [B], uniform over the classes
    shifts: jax.Array  # int32 [B, 2, 2], of generated and real images


def _draw(key, count, latent, classes, most):
    latent_key, label_key, shift_key = jax.random.split(key, 3)
    return _Draw(
        jax.random.normal(latent_key, (count, latent), jnp.float32),
        jax.random.randint(label_key, (count,), 0, classes, jnp.int32),
        draw_shifts(shift_key, 2 * count, most).reshape(count, 2, 2),
    )


class _Found(NamedTuple):
    """The outcome of one pass over a batch or a part of it."""

    gradient: Any
    spectral: Any  # by network
    metrics: Metrics


class _Gradients:
    """The gradients of both losses for a part of a batch, `[G, b, ...]`."""

    def __init__(self, networks: Networks, settings: AdversarialSettings):
        self._generator, self._discriminator = networks
        self._settings = settings

    def of_discriminator(self, state: GanState, part) -> _Found:
        """The gradient by the discriminator's parameters, with the generator as it is."""
        images, labels, drawn = part
        fake, moved = self._generate(state.params[GENERATOR], state.spectral[GENERATOR], drawn)
        real, labels = _flat(scale_pixels(images)), _flat(labels)
        fake_labels, shifts = _flat(drawn.labels), _flat(drawn.shifts)
        fake = jax.lax.stop_gradient(fake)

        def loss_of(params):
            shown = [self._shifted(fake, shifts[:, 0]), self._shifted(real, shifts[:, 1])]
            # Both in one pass, and neighbors, so that each device has as many of both.
            pairs = (jnp.stack(both, 1) for both in (shown, (fake_labels, labels)))
            logits, vectors = self._judge(params, state.spectral[DISCRIMINATOR], *map(_flat, pairs))
            of_fake, of_real = logits.reshape(-1, 2).T
            loss = losses.discriminator_loss(of_real, of_fake)
            metrics = {"logit_real": jnp.mean(of_real), "logit_fake": jnp.mean(of_fake)}
            return loss, (vectors, {"discriminator_loss": loss} | metrics)

        loss = jax.value_and_grad(loss_of, has_aux=True)
        (_, (vectors, metrics)), gradient = loss(state.params[DISCRIMINATOR])
        metrics["saturated_share"] = jnp.mean(jnp.abs(fake) > _SATURATED)
        metrics["class_variance_ratio"] = losses.variance_ratio(
            fake, fake_labels, real, labels, self._generator.num_classes
        )
        return _Found(gradient, {GENERATOR: moved, DISCRIMINATOR: vectors}, metrics)

    def of_generator(self, state: GanState, drawn: _Draw) -> _Found:
        """The gradient by the generator's parameters, through the discriminator as it is."""
        labels, shifts = _flat(drawn.labels), _flat(drawn.shifts)

        def loss_of(params):
            fake, moved = self._generate(params, state.spectral[GENERATOR], drawn)
            shown = self._shifted(fake, shifts[:, 0])
            held = state.params[DISCRIMINATOR], state.spectral[DISCRIMINATOR]
            logits, vectors = self._judge(*held, shown, labels)
            return losses.generator_loss(logits), {GENERATOR: moved, DISCRIMINATOR: vectors}

        loss = jax.value_and_grad(loss_of, has_aux=True)
        (value, vectors), gradient = loss(state.params[GENERATOR])
        return _Found(gradient, vectors, {"generator_loss": value})

    def _generate(self, params, vectors, drawn: _Draw):
        """Images `[G b, P, P, C]` in training mode, each group with its own statistics, and new vectors."""
        variables = {"params": params, spectral.COLLECTION: vectors}

        def of_group(z, labels):
            mutable = [spectral.COLLECTION, "batch_stats"]
            images, updated = self._generator.apply(variables, z, labels, train=True, mutable=mutable)
            return images, updated[spectral.COLLECTION]

        if len(drawn.latents) == 1:  # one group needs no further axis
            return of_group(drawn.latents[0], drawn.labels[0])
        each = jax.vmap(of_group, out_axes=(0, None))
        images, vectors = each(drawn.latents, drawn.labels)
        return _flat(images), vectors

    def _judge(self, params, vectors, images, labels):
        variables = {"params": params, spectral.COLLECTION: vectors}
        logits, updated = self._discriminator.apply(variables, images, labels, mutable=[spectral.COLLECTION])
        return logits, updated[spectral.COLLECTION]

    def _shifted(self, images, shifts):
        return shift(images, shifts) if self._settings.shift else images


def _flat(values):
    """`[G, b, ...]` to `[G b, ...]`."""
    return values.reshape(-1, *values.shape[2:])


def _cut(values, *, groups: int, parts: int, mesh: Mesh, steps: int = 1):
    """Divides `[S B, ...]` into `[S, A, G, b, ...]`."""
    # Groups vary slowest, so that every part has images of every device, and steps fastest.
    values = values.reshape(groups, parts, -1, steps, *values.shape[1:])
    values = jnp.moveaxis(values, (3, 1, 0, 2), (0, 1, 2, 3))
    return jax.lax.with_sharding_constraint(values, grouped(mesh, axis=2))


def _update(state: GanState, optimizers, name: str, found: _Found) -> tuple[GanState, jax.Array]:
    """The state after a step of one network's optimizer, and the norm of the gradient."""
    params = state.params[name]
    change, opt_state = optimizers[name].update(found.gradient, state.opt_state[name], params)
    state = state._replace(
        params=state.params | {name: optax.apply_updates(params, change)},
        opt_state=state.opt_state | {name: opt_state},
        spectral=found.spectral,
    )
    return state, optax.tree.norm(found.gradient)


def _add_orthogonality(state: GanState, gradient, factor: float):
    extra = losses.orthogonality_gradient(state.params[GENERATOR])
    return jax.tree.map(lambda one, other: one + factor * other, gradient, extra)


def _first_sigma(state: GanState) -> jax.Array:
    weights, vectors = (tree[GENERATOR]["bottom"] for tree in (state.params, state.spectral))
    return spectral.largest_singular_value(weights["kernel"], vectors["u"])


def _averaged(state: GanState, settings: AdversarialSettings):
    """The moving average after a step; until its start it is a copy of the parameters."""
    decay = jnp.where(state.step < settings.average_start, 0.0, settings.average_decay)
    return jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state.average, state.params[GENERATOR]
    )
