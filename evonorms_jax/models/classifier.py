"""The two ends that all networks share: the type of the injected layer, and the classifier.

Every network has a field `norm_act`, a `NormActConstructor`, and ends with a `Classifier`.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn


class NormActConstructor(Protocol):
    """Constructors of modules `x -> y` of the same shape, the only things that a model knows of its norm.

    `use_running_average` is True in inference, `dtype` is the model's compute dtype, and `name` is the name
    of the site in the model's parameters.
    """

    def __call__(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """The normalization with its non-linearity."""

    def affine(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """The affine form without normalization and non-linearity, for sites after a linear projection."""

    def norm(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """The normalization for sites without an activation of their own, as before attention or an MLP.

        A norm comes without its activation. A layer whose norm and non-linearity are one function comes
        whole. Only token models, which are beyond the paper, have such sites.
        """


class Classifier(nn.Module):
    """Logits of a feature map or of tokens, float32 for any dtype of x.

    The dense kernel starts as N(0, 0.01^2), the bias at 0, as in the released ResNet code.
    """

    num_classes: int
    dropout_rate: float = 0.0  # of pooled features in training; a rate above 0 needs the rng "dropout"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps `x` `[B, spatial..., C]` to logits `[B, num_classes]`, float32."""
        x = jnp.mean(x, axis=tuple(range(1, x.ndim - 1)), dtype=jnp.float32)
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="dense")(x)
