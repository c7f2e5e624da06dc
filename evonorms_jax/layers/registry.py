"""Constructors of layers by name, graph or saved file, and the weight decay mask that spares the norms."""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from etils import epath
from flax import linen as nn
from flax.core import FrozenDict

from evonorms_jax.errors import UserError
from evonorms_jax.layers import baselines, linen, tokens
from evonorms_jax.layers.pointwise import gelu
from evonorms_jax.search_space.graph import SCHEMA, Graph, check_schema


@dataclass(frozen=True)
class LayerConstructor:
    """The `norm_act` of a model: makes a layer, and its twin without the nonlinearity.

    Constructors of equal layers are equal. They can be hashed, pickled and copied if their fields can.
    """

    make: Callable[..., nn.Module]  # makes a module with the fields of `layers.linen`, as its class does
    fields: Mapping[str, Any] = FrozenDict()  # set on every layer made

    def __post_init__(self):
        fields = {name: baselines.by_name(value) for name, value in self.fields.items()}
        object.__setattr__(self, "fields", FrozenDict(fields))

    def __call__(self, **fields: Any) -> nn.Module:
        """The layer with its nonlinearity. `fields` replace those of the constructor."""
        return self.make(**{**self.fields, **fields})

    def affine(self, **fields: Any) -> nn.Module:
        """The twin without the nonlinearity, for places after which the network stays linear."""
        return self(nonlinearity=False, **fields)

    def norm(self, **fields: Any) -> nn.Module:
        """The layer for places that need a norm without an activation, as before attention.

        A layer that is still a norm without its nonlinearity loses it. Any other, such as an EvoNorm, a graph
        or DyT, comes whole, since its norm and its nonlinearity are one function.
        """
        return self(nonlinearity=not getattr(self.make, "separable", False), **fields)


def _baseline(layer: type[nn.Module], activation: Callable[[Any], Any]) -> LayerConstructor:
    return LayerConstructor(layer, {"activation": activation})


#: Every named layer. A new one is one line here.
LAYERS: dict[str, LayerConstructor] = {
    "evonorm_b0": LayerConstructor(linen.EvoNormB0),
    "evonorm_b1": LayerConstructor(linen.EvoNormB1),
    "evonorm_b2": LayerConstructor(linen.EvoNormB2),
    "evonorm_s0": LayerConstructor(linen.EvoNormS0),
    "evonorm_s0a": LayerConstructor(linen.EvoNormS0a),
    "evonorm_s1": LayerConstructor(linen.EvoNormS1),
    "evonorm_s2": LayerConstructor(linen.EvoNormS2),
    "bn_relu": _baseline(baselines.BatchNormAct, nn.relu),
    "bn_silu": _baseline(baselines.BatchNormAct, nn.silu),
    "gn_relu": _baseline(baselines.GroupNormAct, nn.relu),
    "gn_silu": _baseline(baselines.GroupNormAct, nn.silu),
    "ln_relu": _baseline(baselines.LayerNormAct, nn.relu),
    "ln_silu": _baseline(baselines.LayerNormAct, nn.silu),
    "in_relu": _baseline(baselines.InstanceNormAct, nn.relu),
    "in_silu": _baseline(baselines.InstanceNormAct, nn.silu),
    "pn_relu": _baseline(baselines.PixelNormAct, nn.relu),
    "pn_silu": _baseline(baselines.PixelNormAct, nn.silu),
    "frn_tlu": LayerConstructor(baselines.FilterResponseNorm),
    # Layers of token models, over the channels of one position or pointwise, and activations without a norm.
    "dyt": LayerConstructor(tokens.DynamicTanh),
    "derf": LayerConstructor(tokens.DynamicErf),
    "rms": LayerConstructor(tokens.RMSNormAct),
    "rms_relu": _baseline(tokens.RMSNormAct, nn.relu),
    "rms_silu": _baseline(tokens.RMSNormAct, nn.silu),
    "rms_gelu": _baseline(tokens.RMSNormAct, gelu),
    "lnc": LayerConstructor(tokens.ChannelNormAct),
    "lnc_relu": _baseline(tokens.ChannelNormAct, nn.relu),
    "lnc_silu": _baseline(tokens.ChannelNormAct, nn.silu),
    "lnc_gelu": _baseline(tokens.ChannelNormAct, gelu),
    "relu": _baseline(tokens.NoNormAct, nn.relu),
    "silu": _baseline(tokens.NoNormAct, nn.silu),
    "gelu": _baseline(tokens.NoNormAct, gelu),
}


def norm_act(spec: str | Graph, **fields: Any) -> LayerConstructor:
    """The constructor of a layer.

    Args:
      spec: name in `LAYERS`, or `Graph`, or path of a layer file and the number of a layer in it, such as
        `~/runs/mnist5k/top_layers.json#0`. Without a number it is the first layer. The last `#` separates.
      **fields: fields set on every layer made, such as `groups=16` or `axis_name="devices"`.

    Raises:
      ValueError: if the name is unknown, or the file is missing, damaged, of a newer schema, or has no layer
        of that number.
    """
    if isinstance(spec, Graph):
        return LayerConstructor(linen.GraphNormAct, {"graph": spec, **fields})
    if spec in LAYERS:
        return LayerConstructor(LAYERS[spec].make, {**LAYERS[spec].fields, **fields})
    if ".json" in spec:
        return LayerConstructor(linen.GraphNormAct, {"graph": load_layer(spec), **fields})
    near = difflib.get_close_matches(spec, LAYERS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(LAYERS)}, or a file.json#0"
    raise UserError(f"unknown layer {spec!r}; {hint}")


def layer_file(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of a layer file: rows of JSON values, each with a `graph` in the form of `Graph.to_json`."""
    return json.dumps({"schema": SCHEMA, "layers": list(rows)}, indent=1) + "\n"


def load_layer(spec: str) -> Graph:
    """The graph of one layer of a saved file, `path.json#number`. Raises the errors of `norm_act`."""
    path, separator, number = spec.rpartition("#")
    if not separator or number.endswith(".json"):  # a `#` in the path of a file, without a number after it
        path, number = spec, ""
    path = epath.Path(path).expanduser()
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"cannot read the layer file {path}: {error.strerror or error}") from None
    except ValueError:
        raise UserError(f"the layer file {path} is damaged: it is not JSON") from None
    if not isinstance(data, dict) or not isinstance(data.get("layers"), list):
        raise UserError(f"{path} is not a layer file: expected an object with 'layers'")
    check_schema(data.get("schema"), f"layer file {path}")
    layers = data["layers"]
    number = number or "0"
    if not layers:
        raise UserError(f"the layer file {path} has no layers")
    if not number.isdecimal() or int(number) >= len(layers):
        raise UserError(f"{path} has layers #0 to #{len(layers) - 1}, got #{number}")
    layer = layers[int(number)]
    try:
        return Graph.from_json(layer["graph"])
    except (KeyError, TypeError):
        raise UserError(f"the layer file {path} is damaged: layer #{number} has no graph") from None
    except ValueError as error:
        raise UserError(f"the layer file {path} is damaged: layer #{number}: {error}") from None


_NORM_PARAMETERS = {"scale", "bias", "v", "v0", "v1", "tau", "alpha", "shift"}
# Of a dict that was flattened with "_", which is part of Flax's own names: BatchNorm_0_scale.
_JOINED = re.compile(rf"\w+_\d+_({'|'.join(_NORM_PARAMETERS)})")


def norm_parameters(params: Any) -> Any:
    """The mask that keeps weight decay off the norms: `optax.add_decayed_weights(d, mask=norm_parameters)`.

    Args:
      params: parameters of a model as nested dicts, as `FrozenDict`, as `nnx.State`, or as a flat dict. Its
        keys are tuples of names, or names joined by "/", "." or any sign but letters, digits and "_".

    Returns:
      The same tree with False for gamma, beta, v, v0, v1, tau, alpha and shift of a norm and True elsewhere.
      A module is a norm if all its parameters have these names. The bias of a dense layer has a kernel beside
      it.

    Raises:
      ValueError: if the place of a parameter in the tree has no name, as in a list of arrays, or its name
        joins module and parameter by "_".
    """
    siblings: dict[tuple[str, ...], set[str]] = {}
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        *parents, leaf = _names(path)
        siblings.setdefault(tuple(parents), set()).add(leaf)

    def decays(path, _):
        return not siblings[tuple(_names(path)[:-1])] <= _NORM_PARAMETERS

    return jax.tree_util.tree_map_with_path(decays, params)


def _names(path) -> list[str]:
    """Names of the modules on the way to a parameter, and its own."""
    named = jax.tree_util.DictKey | jax.tree_util.GetAttrKey
    keys = list(path)
    # The last key of an nnx.State or of a boxed parameter is the attribute `value` of the box.
    if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
        keys.pop()
    while keys and not isinstance(keys[-1], named):
        keys.pop()
    names = [name for key in keys for name in _split(key)]
    if not names:
        place = jax.tree_util.keystr(path) or "the only array"
        raise UserError(f"norm_parameters knows a norm by the names of its parameters, {place} has none")
    if _JOINED.fullmatch(names[-1]):
        raise UserError(
            f"norm_parameters cannot tell module from parameter in {names[-1]!r}: flatten with sep='/'"
        )
    return names


def _split(key: Any) -> list[str]:
    """Names in one key of a tree."""
    if isinstance(key, jax.tree_util.SequenceKey):
        return [str(key.idx)]
    name = getattr(key, "name", getattr(key, "key", key))
    parts = name if isinstance(name, tuple) else (name,)
    return [word for part in parts for word in re.findall(r"\w+", str(part))]
