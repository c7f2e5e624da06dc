"""The mean logit of held-out images: that of training images is larger if they are learned by heart."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from evonorms_jax.gan import spectral
from evonorms_jax.gan.adversarial import DISCRIMINATOR, GanState, scale_pixels
from evonorms_jax.gan.networks import Discriminator
from evonorms_jax.training.mesh import put_batch
from evonorms_jax.training.steps import building_on


def make_mean_logit(discriminator: Discriminator, mesh: Mesh) -> Callable[..., float | None]:
    """Builds `mean_logit(state, batches, stop)`: the mean over images of the discriminator's logit.

    Batches are (images, labels, weights), each host's own share. `stop()` is asked before every batch. If it
    returns true, or without any batch, the result is None.
    """

    @jax.jit
    def sums(state: GanState, batch):
        images, labels, weights = batch
        variables = {
            "params": state.params[DISCRIMINATOR],
            spectral.COLLECTION: state.spectral[DISCRIMINATOR],
        }
        with building_on(mesh):
            logits = discriminator.apply(variables, scale_pixels(images), labels)
        return jnp.sum(logits * weights), jnp.sum(weights)

    def mean_logit(state, batches, stop=lambda: False):
        total, count = 0.0, 0.0
        for batch in batches:
            if stop():
                return None
            # Fetched one by one: CPU devices can deadlock over collectives that the host does not wait for.
            part, images = jax.device_get(sums(state, put_batch(mesh, batch)))
            total, count = total + float(part), count + float(images)
        return total / count if count else None

    return mean_logit
