"""Images of a generator: latents with a truncation, standing statistics, and samplers by labels and seed.

N images, B images of a program, P their side, C their channels, K classes, Z the size of a latent.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from evonorms_jax.errors import UserError
from evonorms_jax.gan import spectral
from evonorms_jax.gan.construction import networks_of
from evonorms_jax.gan.networks import Generator
from evonorms_jax.training.mesh import data_mesh, put_batch, replicated
from evonorms_jax.training.steps import building_on

#: `(labels int32 [N], seed) -> uint8 [N, P, P, C]`.
Sampler = Callable[[np.ndarray, int], np.ndarray]
#: `(latents float32 [N, Z], labels int32 [N] or weights of classes float32 [N, K]) -> uint8 [N, P, P, C]`.
Renderer = Callable[[np.ndarray, np.ndarray], np.ndarray]
#: Ways to truncate latents, see `SamplingSettings`.
METHODS = ("threshold", "scaled")
# Power iterations on the averaged weights, whose vectors the training does not follow.
_ITERATIONS = 30
_LATENTS, _STATISTICS = 0, 1  # uses of a seed


class SamplingSettings(NamedTuple):
    """How images are drawn. The fields are the keys of `config.sampling`.

    Attributes:
      truncation: t. By default latents are from N(0, 1).
      method: "threshold" draws a component again until its absolute value is at most t. "scaled" multiplies
        by t a normal that is truncated at 2, as in the usage of the released networks. At t = 1 its deviation
        is 0.88 and not 1.
      batch_size: images B of a program, rounded up to a multiple of the number of devices.
      statistics_batches: batches whose moments are averaged to standing statistics. A batch is that of the
        training, or the images of it that share statistics.
    """

    truncation: float | None = None
    method: str = "threshold"
    batch_size: int = 100
    statistics_batches: int = 16

    def describe(self) -> str:
        """The name of the truncation in every result."""
        return "untruncated" if self.truncation is None else f"{self.method} {self.truncation:g}"


def draw_latents(seed: int, count: int, size: int, settings: SamplingSettings) -> np.ndarray:
    """Latents float32 `[count, size]`; latent number i depends on the seed and i alone.

    Raises `ValueError` if the method is unknown, or t is not above 0.
    """
    check_truncation(settings)
    key = jax.random.fold_in(jax.random.key(seed), _LATENTS)
    drawn = _latents(key, jnp.arange(count, dtype=jnp.int32), size, settings.truncation, settings.method)
    return np.asarray(drawn)


def check_truncation(settings: SamplingSettings) -> None:
    """Raises `ValueError` if the method is unknown, or t is not above 0."""
    if settings.method not in METHODS:
        names = ", ".join(METHODS)
        raise UserError(f"sampling.method must be one of {names}, got {settings.method!r}")
    if settings.truncation is not None and not settings.truncation > 0:
        raise UserError(f"sampling.truncation must be above 0, or none, got {settings.truncation}")


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _latents(key, numbers, size, truncation, method):
    def one(number):
        own = jax.random.fold_in(key, number)
        if truncation is None:
            return jax.random.normal(own, (size,), jnp.float32)
        bound = truncation if method == "threshold" else 2.0
        drawn = jax.random.truncated_normal(own, -bound, bound, (size,), jnp.float32)
        return drawn if method == "threshold" else truncation * drawn

    return jax.vmap(one)(numbers)


def generate(generator: Generator, variables: Any, z: jax.Array, labels: jax.Array) -> jax.Array:
    """Images `[B, P, P, C]` from -1 to 1 in inference mode, each independent of the others.

    Raises `ValueError` if the layer has statistics of the batch and the variables have none: the starts of
    moving statistics would give black and white images.
    """
    if "batch_stats" not in variables and has_batch_statistics(generator):
        raise UserError(
            "the generator has statistics of the batch: accumulate standing statistics before sampling"
        )
    return generator.apply(variables, z, labels, train=False)


def has_batch_statistics(generator: Generator) -> bool:
    """Whether the layer of the generator has statistics of the batch."""
    layer = generator.norm_act(use_running_average=True, dtype=generator.dtype, name="layer")
    return "batch_stats" in jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 1, 1, 8)))


def standing_variables(
    generator: Generator,
    params: Any,
    vectors: Any,
    draw: Callable[[int], tuple[Any, Any]],
    batches: int,
) -> Any:
    """The variables to sample with: settled power iterations, and standing statistics where there are any.

    Statistics are means over batches of the moments of each batch in training mode, from fresh latents and
    labels. They depend on the truncation of the latents. Brock et al. 2019 (arXiv 1809.11096), section 4.1.

    Args:
      generator: the generator.
      params: its parameters, such as averaged ones.
      vectors: its collection `spectral`, which may belong to other parameters.
      draw: `number -> (latents, labels)` of a batch.
      batches: number of batches.
    """
    settle, moments = _programs(generator)
    variables = {"params": params, spectral.COLLECTION: settle(params, vectors)}
    if not has_batch_statistics(generator):
        return variables
    total = None
    for number in range(batches):
        found = moments(variables, *draw(number))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        jax.block_until_ready(
            total
        )  # CPU devices can deadlock over collectives that the host does not wait for
    return variables | {"batch_stats": jax.tree.map(lambda leaf: leaf / batches, total)}


@functools.lru_cache(maxsize=8)
def _programs(generator: Generator):
    """Jitted functions: to settle the power iterations, and to take the moments of one batch."""
    # With a momentum of 0, moving statistics are the moments of the last batch.
    raw = generator.clone(norm_act=functools.partial(generator.norm_act, momentum=0.0))

    @jax.jit
    def moments(variables, z, labels):
        return raw.apply(variables, z, labels, train=True, mutable=["batch_stats"])[1]["batch_stats"]

    return jax.jit(lambda params, vectors: spectral.refresh(params, vectors, _ITERATIONS)), moments


def sampled_variables(generator: Generator, state: Any) -> Any:
    """Shapes of the variables to sample with from a state or its shapes."""
    z, labels = jnp.zeros((1, generator.latent)), jnp.zeros(1, jnp.int32)
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: generator.init(key, z, labels, train=False))
    statistics = {"batch_stats": shapes["batch_stats"]} if "batch_stats" in shapes else {}
    return {"params": state.average, spectral.COLLECTION: state.spectral["generator"]} | statistics


@functools.lru_cache(maxsize=8)
def make_painter(generator: Generator, mesh: Mesh) -> Callable[..., jax.Array]:
    """A jitted function from variables, latents and labels to uint8 images, whole on every device."""

    def paint(variables, z, labels):
        with building_on(mesh):
            images = generate(generator, variables, z, labels)
        return jnp.round(jnp.clip((images + 1) * 127.5, 0, 255)).astype(jnp.uint8)

    return jax.jit(paint, out_shardings=replicated(mesh))


def make_renderer(config: ConfigDict, state: Any) -> Renderer:
    """Builds `render(latents, labels) -> images` from the averaged generator of a state.

    Statistics of the batch are accumulated here, once, for the truncation of the config.

    Args:
      config: config of the training, with the keys of `experiments/configs/gan_digits.py`.
      state: state of the training.

    Raises:
      ValueError: if a setting is out of range; by the renderer, if latents or labels do not fit.
    """
    settings = SamplingSettings(**config.sampling)
    check_truncation(settings)
    generator, mesh = networks_of(config, state.params).generator, _mesh_of(state)
    size = -(-settings.batch_size // mesh.size) * mesh.size

    def draw(number):
        count = config.statistics_batch or config.batch_size
        place = np.random.SeedSequence([config.seed, _STATISTICS, number]).generate_state(2)
        labels = np.random.default_rng(int(place[1])).integers(generator.num_classes, size=count)
        latents = draw_latents(int(place[0]), count, generator.latent, settings)
        if count % mesh.size:
            return latents, labels.astype(np.int32)
        return _put(mesh, (latents, labels.astype(np.int32)))

    with building_on(mesh):
        average, vectors = state.average, state.spectral["generator"]
        variables = standing_variables(generator, average, vectors, draw, settings.statistics_batches)

    paint = make_painter(generator, mesh)

    def render(latents, labels):
        _check(latents, labels, generator)
        images = []
        for start in range(0, len(latents), size):
            part = [values[start : start + size] for values in (latents, labels)]
            count = len(part[0])
            filled = [np.resize(values, (size, *values.shape[1:])) for values in part]
            images.append(np.asarray(paint(variables, *_put(mesh, filled)))[:count])
        side = config.data.crop
        return np.concatenate(images) if images else np.zeros((0, side, side, generator.channels), np.uint8)

    return render


def make_sampler(config: ConfigDict, state: Any) -> Sampler:
    """Builds `sample(labels, seed) -> images` from the averaged generator of a state.

    Statistics of the batch are accumulated here, once, for the truncation of the config. Image number i
    depends on `labels[i]`, the seed and i alone, and neither on N nor on the batch size or the devices.

    Args:
      config: config of the training, with the keys of `experiments/configs/gan_digits.py`. The group
        `sampling` names the truncation, the batch size and the statistics.
      state: state of the training, of `build_task(config).target`'s shapes.

    Raises:
      ValueError: if a setting is out of range; by the sampler, if a label is no class of the generator.
    """
    render = make_renderer(config, state)
    settings = SamplingSettings(**config.sampling)
    latent = networks_of(config, state.params).generator.latent

    def sample(labels, seed):
        labels = np.asarray(labels, np.int32)
        return render(draw_latents(seed, len(labels), latent, settings), labels)

    return sample


def _check(latents, labels, generator):
    if latents.ndim != 2 or latents.shape[1] != generator.latent or len(latents) != len(labels):
        raise UserError(
            f"a generator with latents of size {generator.latent} got latents {latents.shape} and labels "
            f"{labels.shape}"
        )
    integers = np.issubdtype(labels.dtype, np.integer)
    wrong = labels[(labels < 0) | (labels >= generator.num_classes)] if integers else ()
    if len(wrong) or not (integers or labels.shape[1:] == (generator.num_classes,)):
        told = f"label {wrong[0]}" if len(wrong) else f"weights {labels.shape}"
        raise UserError(f"the generator has the classes 0 to {generator.num_classes - 1}, got {told}")


def _mesh_of(state) -> Mesh:
    """The mesh that a state lies on, or one of all devices for arrays of the host."""
    sharding = getattr(jax.tree.leaves(state.average)[0], "sharding", None)
    return sharding.mesh if isinstance(sharding, NamedSharding) else data_mesh()


def _put(mesh: Mesh, tree):
    """Whole arrays of every host, along the first axis on the devices."""
    hosts, own = jax.process_count(), jax.process_index()
    share = [values[own * (len(values) // hosts) : (own + 1) * (len(values) // hosts)] for values in tree]
    return put_batch(mesh, share)
