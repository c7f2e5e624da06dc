"""The trained EvoNorm networks of timm in Flax: from a safetensors file to variables. Beyond the paper.

Names, shapes and layers are those of timm 1.0.31. Its `resnetv2_50d_evos` has EvoNorm-S0 with 32 groups and
epsilon 1e-5. Its two RegNetZ have S0a, `EvoNormS0a`, with 16 channels in a group and epsilon 1e-3. All take
images of `[0, 1]` as `2 x - 1`, and none has moving statistics.

Trainable parameters, counted in timm with PyTorch and here from shapes: `resnetv2_50d_evos` 25,591,368,
`regnetz_c16_evos` 13,487,816, `regnetz_d8_evos` 23,464,296.

A tensor is named by its path in Flax, such as `stage_1_block_1/conv_1/kernel`, with kernels
`[H, W, in, out]`. In PyTorch they are `[out, in, H, W]`.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import linen as nn
from flax.traverse_util import unflatten_dict

from evonorms_jax.errors import UserError
from evonorms_jax.layers import norm_act
from evonorms_jax.models import build_model
from evonorms_jax.packages import require
from evonorms_jax.runs.config_checks import nearest
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.tensors import check_tensors, flat_tensors, read_npz, write_npz

CLASSES = 1000
_NETWORK = "network"  # entry of an .npz with the name of its network
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "v": "v"}


class TimmNetwork(NamedTuple):
    """A network of timm and its twin here.

    Attributes:
      repository: name on huggingface.co, where `model.safetensors` has the weights.
      model: name in `evonorms_jax.models`.
      layer: name of the layer, and its fields.
      block: name of a block in timm, by its stage and its number, from 0 on.
      modules: name in timm by the path here, of modules outside blocks and inside a block.
    """

    repository: str
    model: str
    layer: tuple[str, Mapping[str, Any]]
    block: str
    modules: Mapping[str, str]

    def build(self, dtype: Any = jnp.float32) -> nn.Module:
        """The model with its layers, for 1,000 classes."""
        name, fields = self.layer
        layer = norm_act(name, **fields)
        return build_model(self.model, norm_act=layer, num_classes=CLASSES, dtype=dtype)


_IN_RESNET = {f"{name}_{number}": f"{name}{number}" for name in ("norm", "conv") for number in (1, 2, 3)} | {
    "shortcut": "downsample.conv",
    "stem": "stem.conv1",
    "norm_stem": "stem.norm1",
    "stem_2": "stem.conv2",
    "norm_stem_2": "stem.norm2",
    "stem_3": "stem.conv3",
    "norm_final": "norm",
    "classifier/dense": "head.fc",
}
_IN_REGNETZ = {
    "expand": "conv1_1x1.conv",
    "norm_expand": "conv1_1x1.bn",
    "depthwise": "conv2_kxk.conv",
    "norm_depthwise": "conv2_kxk.bn",
    "squeeze_excite/reduce": "attn.fc1",
    "squeeze_excite/expand": "attn.fc2",
    "project": "conv3_1x1.conv",
    "affine_project": "conv3_1x1.bn",
    "head": "final_conv.conv",
    "norm_head": "final_conv.bn",
    "classifier/dense": "head.fc",
}
_STEM = {"stem": "stem.conv", "norm_stem": "stem.bn"}
_DEEP_STEM = {
    f"{ours}{suffix}": f"stem.conv{number}.{theirs}"
    for number, suffix in enumerate(("", "_2", "_3"), 1)
    for ours, theirs in (("stem", "conv"), ("norm_stem", "bn"))
}
_S0A = ("evonorm_s0a", {"group_size": 16, "epsilon": 1e-3})
#: The networks by their names in timm.
NETWORKS: dict[str, TimmNetwork] = {
    "resnetv2_50d_evos": TimmNetwork(
        "timm/resnetv2_50d_evos.ah_in1k",
        "resnet50_d",
        ("evonorm_s0", {"groups": 32, "epsilon": 1e-5}),
        "stages.{}.blocks.{}.",
        _IN_RESNET,
    ),
    "regnetz_c16_evos": TimmNetwork(
        "timm/regnetz_c16_evos.ch_in1k", "regnetz_c16", _S0A, "stages.{}.{}.", _IN_REGNETZ | _STEM
    ),
    "regnetz_d8_evos": TimmNetwork(
        "timm/regnetz_d8_evos.ch_in1k", "regnetz_d8", _S0A, "stages.{}.{}.", _IN_REGNETZ | _DEEP_STEM
    ),
}


def get_network(name: str) -> TimmNetwork:
    """The entry of `NETWORKS`. Raises `ValueError` if there is none."""
    if name not in NETWORKS:
        raise UserError(f"unknown network {name!r}{nearest(name, NETWORKS)}; there are {', '.join(NETWORKS)}")
    return NETWORKS[name]


@functools.cache
def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a network, by its path in Flax."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = functools.partial(get_network(name).build().init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)
    return {path: leaf.shape for path, leaf in flat_tensors(variables).items()}


def timm_name(name: str, path: str) -> str:
    """The name in timm of the tensor with a path in Flax."""
    network = get_network(name)
    *parents, leaf = path.split("/")
    prefix = ""
    if parents[0].startswith("stage_"):
        _, stage, _, block = parents.pop(0).split("_")
        prefix = network.block.format(int(stage) - 1, int(block) - 1)
    return f"{prefix}{network.modules['/'.join(parents)]}.{_LEAVES[leaf]}"


def convert(path: epath.PathLike, name: str) -> dict[str, np.ndarray]:
    """Reads timm's weights: float32 tensors by their path in Flax.

    Args:
      path: file `model.safetensors` of the network's repository.
      name: name in `NETWORKS`.

    Raises:
      ValueError: an unknown name, no such file, another kind, a damaged one, or one of another network. The
        message names the first wrong tensor.
      ModuleNotFoundError: without the package safetensors.
    """
    network, path = get_network(name), absolute(path)
    tensors = _read_safetensors(path, network)
    ours = {timm_name(name, leaf): leaf for leaf in shapes(name)}
    expected = {theirs: _torch_shape(shapes(name)[leaf]) for theirs, leaf in ours.items()}
    check_tensors(path, name, expected, tensors)
    for theirs in tensors:
        if theirs not in ours:
            raise UserError(f"{path} is not {name}: it has a tensor {theirs} that the network lacks")
    return {leaf: _from_torch(tensors[theirs], shapes(name)[leaf]) for theirs, leaf in ours.items()}


def variables_of(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables of a network from its tensors by path."""
    return {"params": unflatten_dict(dict(tensors), sep="/")}


def save(path: epath.PathLike, name: str, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes the tensors of a network with its name as an `.npz`, which `load` reads."""
    write_npz(path, {**tensors, _NETWORK: np.array(name)})


def load(path: epath.PathLike) -> tuple[nn.Module, dict[str, Any]]:
    """The model and the variables of an `.npz` that `save` wrote.

    Raises `ValueError` if there is no such file, it is damaged, or it has no such network.
    """
    path = absolute(path)
    if not path.exists():
        raise UserError(f"there is no file {path}: experiments.convert_timm writes it")
    tensors = read_npz(path)
    if _NETWORK not in tensors:
        raise UserError(f"{path} does not name its network: experiments.convert_timm writes such files")
    name = str(tensors.pop(_NETWORK))
    network = get_network(name)
    check_tensors(path, name, shapes(name), tensors)
    return network.build(), variables_of(tensors)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in PyTorch. A dense kernel may be a convolution's there, with two more axes of size 1."""
    return (*shape[-1:-3:-1], *shape[:-2])


def _from_torch(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of PyTorch in the shape here."""
    values = np.asarray(values, np.float32).reshape(_torch_shape(shape))
    return np.moveaxis(values, (1, 0), (-2, -1)) if values.ndim > 1 else values


def _read_safetensors(path: epath.Path, network: TimmNetwork) -> dict[str, np.ndarray]:
    if path.suffix != ".safetensors":
        raise UserError(f"weights are read from .safetensors, got {path}")
    if not path.exists():
        raise UserError(
            f"there is no file {path}: get model.safetensors from https://huggingface.co/{network.repository}"
        )
    require(("safetensors.numpy",), f"reading {path.name}", install="evonorms-jax[weights]")
    import safetensors.numpy  # an extra

    try:
        return safetensors.numpy.load(path.read_bytes())
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from None
