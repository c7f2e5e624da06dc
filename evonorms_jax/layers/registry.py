"""From a name, a graph or a saved file to the constructors that a model takes."""

import difflib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from etils import epath
from flax import linen as nn

from evonorms_jax.errors import UserError
from evonorms_jax.layers import baselines, linen
from evonorms_jax.search_space.graph import SCHEMA, Graph, check_schema

#: Every named layer. A new one is one line here.
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "evonorm_b0": linen.EvoNormB0,
    "evonorm_b1": linen.EvoNormB1,
    "evonorm_b2": linen.EvoNormB2,
    "evonorm_s0": linen.EvoNormS0,
    "evonorm_s1": linen.EvoNormS1,
    "evonorm_s2": linen.EvoNormS2,
    "bn_relu": baselines.BatchNormAct,
    "bn_silu": functools.partial(baselines.BatchNormAct, activation=nn.silu),
    "gn_relu": baselines.GroupNormAct,
    "gn_silu": functools.partial(baselines.GroupNormAct, activation=nn.silu),
    "ln_relu": baselines.LayerNormAct,
    "ln_silu": functools.partial(baselines.LayerNormAct, activation=nn.silu),
    "in_relu": baselines.InstanceNormAct,
    "in_silu": functools.partial(baselines.InstanceNormAct, activation=nn.silu),
    "frn_tlu": baselines.FilterResponseNorm,
}


@dataclass(frozen=True)
class LayerConstructor:
    """What a model takes as `norm_act`: makes the layer, and its twin without the non-linearity.

    Attributes:
      make: a Linen module class or a partial of one, with the fields of `layers.linen`.
    """

    make: Callable[..., nn.Module]

    def __call__(self, **fields: Any) -> nn.Module:
        """The layer with its non-linearity."""
        return self.make(**fields)

    def affine(self, **fields: Any) -> nn.Module:
        """Its twin for places after which the network stays linear."""
        return self.make(nonlinearity=False, **fields)


def norm_act(spec: str | Graph, **fields: Any) -> LayerConstructor:
    """The constructor of a layer.

    Args:
      spec: a name of `LAYERS`, a `Graph`, or a saved file with the number of a layer in it, such as
        `runs/mnist5k/top_layers.json#0` (without a number, the first).
      **fields: fields set on every layer made, such as `groups=16` or `axis_name="devices"`.

    Raises:
      ValueError: if the name is unknown, or the file is missing, damaged, of a newer schema, or has no layer
        of that number.
    """
    if isinstance(spec, Graph):
        make = functools.partial(linen.GraphNormAct, graph=spec)
    elif spec in LAYERS:
        make = LAYERS[spec]
    elif ".json" in spec:
        make = functools.partial(linen.GraphNormAct, graph=load_layer(spec))
    else:
        near = difflib.get_close_matches(spec, LAYERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(LAYERS)}, or a file.json#0"
        raise UserError(f"unknown layer {spec!r}; {hint}")
    return LayerConstructor(functools.partial(make, **fields))


def layer_file(rows: Sequence[Mapping[str, Any]]) -> str:
    """The text of a layer file: rows of what JSON can hold, each with a graph as `Graph.to_json` gives it."""
    return json.dumps({"schema": SCHEMA, "layers": list(rows)}, indent=1) + "\n"


def save_layers(path: epath.PathLike, layers: Sequence[dict[str, Any]]) -> None:
    """Writes a layer file, atomically: each layer is an object whose `graph` is a `Graph`."""
    rows = [{**layer, "graph": layer["graph"].to_json(), "equation": str(layer["graph"])} for layer in layers]
    path = epath.Path(path)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(layer_file(rows))
    draft.replace(path)


def load_layer(spec: str) -> Graph:
    """The graph of one layer of a saved file, `path.json#number`; errors as `norm_act`."""
    path, _, number = spec.partition("#")
    try:
        data = json.loads(epath.Path(path).read_text())
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


_NORM_PARAMETERS = {"scale", "bias", "v", "v0", "v1", "tau"}


def norm_parameters(params: Any) -> Any:
    """The mask that keeps weight decay off the norms, `optax.add_decayed_weights(d, mask=norm_parameters)`.

    Args:
      params: the parameters of a model, nested dicts (Linen) or an `nnx.State`.

    Returns:
      The same tree with False for gamma, beta, v, v0, v1 and tau of a norm and True for all else. A norm is
      known by holding nothing but these: the bias of a dense layer stands beside a kernel.
    """
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    siblings: dict[tuple[str, ...], set[str]] = {}
    for path in paths:
        *parents, leaf = _names(path)
        siblings.setdefault(tuple(parents), set()).add(leaf)

    def decays(path, _):
        return not siblings[tuple(_names(path)[:-1])] <= _NORM_PARAMETERS

    return jax.tree_util.tree_map_with_path(decays, params)


def _names(path) -> list[str]:
    # The last key of an nnx.State is the attribute `.value` of the variable, not a name.
    keys = path[:-1] if isinstance(path[-1], jax.tree_util.GetAttrKey) else path
    return [str(getattr(key, "key", key)) for key in keys]
