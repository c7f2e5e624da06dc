"""Networks that turn images into features and logits for scores, and their use on sets of any size.

N images in all, B of a batch, D features, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from evonorms_jax.errors import UserError
from evonorms_jax.gan import inception_weights
from evonorms_jax.gan.inception import FEATURES, Inception
from evonorms_jax.gan.resize import check_convention, preprocess
from evonorms_jax.training.mesh import data_mesh, put_batch, replicated, split
from evonorms_jax.training.steps import building_on

#: The name of the network that makes a distance an FID and a class score an Inception score.
INCEPTION = "Inception of 2015-12-05"


class FeatureNetwork(NamedTuple):
    """A network for scores.

    Attributes:
      name: name in results.
      crc: CRC-32 of its weights.
      convention: resize convention of its input, "none" for images as they are.
      features: D.
      variables: its weights, a pytree.
      extract: `(variables, images uint8 [B, H, W, C]) -> (features [B, D], logits [B, K])`, pure.
    """

    name: str
    crc: str
    convention: str
    features: int
    variables: Any
    extract: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]

    def identity(self) -> dict[str, str]:
        """The record of the network that results and stored statistics carry."""
        return {"network": self.name, "weights_crc": self.crc, "resize": self.convention}


class Embedded(NamedTuple):
    """Features and logits of images, float32 on the host."""

    features: np.ndarray  # [N, D]
    logits: np.ndarray  # [N, K]


def inception_network(weights: inception_weights.Weights, convention: str = "tf1") -> FeatureNetwork:
    """The Inception network.

    Raises `ValueError` for an unknown resize convention.
    """
    check_convention(convention)

    def extract(variables, images):
        return Inception().apply(variables, preprocess(images, convention))

    return FeatureNetwork(INCEPTION, weights.crc, convention, FEATURES, weights.variables, extract)


class Embedder:
    """Applies a network to images, in batches of one size on the devices of this host.

    The last batch is filled up, so that no image is left out and one program serves all.
    """

    def __init__(
        self, network: FeatureNetwork, batch_size: int = 64, devices: Sequence[jax.Device] | None = None
    ):
        """Places the network on the devices, by default all of this host.

        The images of a batch on all devices are rounded up to a multiple of their number.
        """
        self.network = network
        self._mesh = data_mesh(jax.local_devices() if devices is None else devices)
        self._size = -(-batch_size // self._mesh.size) * self._mesh.size
        # As an argument: weights of 95 MB within a program would take minutes to build.
        self._variables = jax.device_put(network.variables, replicated(self._mesh))
        self._extract = jax.jit(self._traced, out_shardings=split(self._mesh))

    def _traced(self, variables, images):
        with building_on(self._mesh):
            return self.network.extract(variables, images)

    def parts(self, images: np.ndarray) -> Iterator[Embedded]:
        """Features and logits of uint8 `[N, H, W, C]`, some images at a time."""
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"scores need images uint8 [N, H, W, C], got {images.dtype} {images.shape}")
        for start in range(0, len(images), self._size):
            batch = images[start : start + self._size]
            filled = np.zeros((self._size, *images.shape[1:]), np.uint8)
            filled[: len(batch)] = batch
            found = jax.device_get(self._extract(self._variables, put_batch(self._mesh, filled)))
            yield Embedded(*(values[: len(batch)] for values in found))

    def __call__(self, images: np.ndarray) -> Embedded:
        """Features and logits of all images."""
        return Embedded(*map(np.concatenate, zip(*self.parts(images), strict=True)))
