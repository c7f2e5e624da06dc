"""What a model asks of the layer injected into it: the type of the field `norm_act`."""

from typing import Any, Protocol

from flax import linen as nn


class NormActConstructor(Protocol):
    """Two constructors of modules `x -> y` of the same shape; a model knows a norm only by them.

    `use_running_average` is True in inference, `dtype` the model's compute dtype, `name` the name
    of the site in the model's parameters.
    """

    def __call__(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """The normalization with its non-linearity."""

    def affine(self, *, use_running_average: bool, dtype: Any, name: str) -> nn.Module:
        """Its twin without the non-linearity; it stands after a linear projection."""
