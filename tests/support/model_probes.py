"""Stand-ins for an injected layer, and probes of a network that do not run it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

# Deeper variants of networks that every run traces.
DEEPER = {
    "resnet101",
    "mnasnet_b1",
    "regnetz_d8",
    "vit_s16_plain",
    *(f"efficientnet_b{number}" for number in (1, 2, 3, 4, 6, 7)),
}


def exhaustive(names):
    """Names as parameters of a test, which runs on the deeper variants on demand."""
    return [pytest.param(name, marks=pytest.mark.exhaustive if name in DEEPER else ()) for name in names]


class BatchNormRelu(nn.Module):
    """The stand-in for an injected layer."""

    use_running_average: bool
    nonlinear: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        y = nn.BatchNorm(self.use_running_average, momentum=0.9, dtype=self.dtype, name="norm")(x)
        return nn.relu(y) if self.nonlinear else y


class Identity(nn.Module):
    """The identity as a layer."""

    use_running_average: bool
    nonlinear: bool
    dtype: Any

    def __call__(self, x):
        return x


@dataclasses.dataclass(frozen=True)
class Constructor:
    """The two constructors that a model is given."""

    module: type[nn.Module] = BatchNormRelu

    def __call__(self, **fields):
        return self.module(nonlinear=True, **fields)

    def affine(self, **fields):
        return self.module(nonlinear=False, **fields)

    norm = affine  # a norm without its activation


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def shapes_of(model, side=32):
    """Shapes and dtypes of the variables of `model`."""
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def random_variables(rng, model, side):
    """Variables of `model` with random kernels, as quickly as NumPy makes them."""

    def fill(path, leaf):
        kernel = path[-1].key == "kernel"
        return normal(rng, *leaf.shape) / 4 if kernel else jnp.ones(leaf.shape)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(model, side))


def calls_of(model, side=32, train=True):
    """The submodules that `model` calls, in the order of the calls."""
    calls = []

    def record(call, args, kwargs, context):
        calls.append(context.module)
        return call(*args, **kwargs)

    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    with nn.intercept_methods(record):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=train), images)
    return calls
