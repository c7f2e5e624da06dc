"""Files with the weights of the Inception network, which this package does not bring along.

A tensor is named by its path, such as `Mixed_5b/branch5x5_1/conv/kernel`. Three kinds of files have them:

- `.npz`: these names, kernels `[H, W, in, out]`. `save` writes it.
- `.pth`: PyTorch's state dict of pytorch-fid or torch-fidelity, whose kernels are `[out, in, H, W]`; reading
  it needs torch.
- `.pickle` or `.pkl`: the nested dict of jax-fid and fidjax. It is read without running code from the file.
"""

import functools
import importlib
import io
import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from evonorms_jax.errors import UserError
from evonorms_jax.gan.inception import Inception
from evonorms_jax.runs.files import absolute
from evonorms_jax.runs.tensors import check_tensors, fingerprint, flat_tensors, read_npz, write_npz

#: The environment variable that names the file if no flag does.
VARIABLE = "EVONORMS_INCEPTION"
ADVICE = (
    "FID and Inception score need the weights of the Inception network of 2015: give --inception=PATH or set "
    f"{VARIABLE}=PATH to pytorch-fid's pt_inception-2015-12-05-6726825d.pth (reading it needs torch), to "
    "jax-fid's inception_v3_weights_fid.pickle, or to an .npz that experiments.convert_inception wrote"
)
_STATISTICS = ("mean", "var")
_TORCH = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
# The globals that a pickle of NumPy arrays refers to, in NumPy 1 and 2.
_SAFE = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")}
_SAFE |= {(f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")}


class Weights(NamedTuple):
    """The variables of the network, and the CRC-32 of all tensors, which results carry."""

    variables: dict[str, Any]
    crc: str


def load(path: epath.PathLike) -> Weights:
    """Reads and checks a file of weights.

    Raises:
      ValueError: no such file, an unknown kind, a damaged one, or a tensor that is missing, has another
        shape or is not finite. The message names the first such tensor.
      ModuleNotFoundError: a `.pth` without torch.
    """
    path = absolute(path)
    readers = {".npz": read_npz, ".pth": _read_torch, ".pickle": _read_pickle, ".pkl": _read_pickle}
    if path.suffix not in readers:
        raise UserError(f"weights are read from {', '.join(readers)}, got {path}")
    if not path.exists():
        raise UserError(f"there is no file {path}. {ADVICE}")
    tensors = readers[path.suffix](path)
    # Some files keep the axes of the feature map in the norms, [1, 1, 1, C].
    check_tensors(path, "this Inception network", shapes(), tensors)
    return weights_of(tensors)


def weights_of(tensors: Mapping[str, np.ndarray]) -> Weights:
    """The weights from tensors by name, which have the right number of values."""
    tensors = {name: np.asarray(tensors[name], np.float32).reshape(shape) for name, shape in shapes().items()}
    return Weights(_nested(tensors), fingerprint(tensors))


def save(path: epath.PathLike, weights: Weights) -> None:
    """Writes weights as `.npz`."""
    write_npz(path, flat_tensors(weights.variables))


@functools.cache
def shapes() -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name."""
    images = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    variables = jax.eval_shape(Inception().init, jax.random.key(0), images)
    return {name: leaf.shape for name, leaf in flat_tensors(variables).items()}


def _nested(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables of Flax from tensors by name."""
    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, values in tensors.items():
        *parents, leaf = name.split("/")
        place = variables["batch_stats" if leaf in _STATISTICS else "params"]
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = values
    return variables


def _read_torch(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        torch = importlib.import_module("torch")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"{path} is read by torch, which is not installed: pip install torch, or convert the file once "
            "on a machine that has it, with experiments.convert_inception",
            name="torch",
        ) from None
    try:
        state = torch.load(str(path), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
    return from_torch({name: tensor.detach().numpy() for name, tensor in state.items()})


def from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch state dict by our names and in our order of axes."""
    found = {}
    for name, values in state.items():
        *parents, leaf = name.split(".")
        if leaf == "num_batches_tracked":
            continue
        if parents[-1:] == ["conv"]:
            leaf, values = "kernel", values.transpose(2, 3, 1, 0)
        elif parents[-1:] == ["bn"]:
            leaf = _TORCH.get(leaf, leaf)
        elif leaf == "weight":  # the classifier
            leaf, values = "kernel", values.T
        found["/".join([*parents, leaf])] = values
    return found


class _Unpickler(pickle.Unpickler):
    """Builds NumPy arrays and containers only: any other global of a pickle could be code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no NumPy array")
        module = module.replace("numpy.core", "numpy._core")  # NumPy 2 warns about the old name
        return super().find_class(module, name)


def _read_pickle(path: epath.Path) -> dict[str, np.ndarray]:
    try:
        nested = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a pickle of arrays: {error}") from None
    if not isinstance(nested, Mapping):
        raise UserError(f"{path} must hold a dict of arrays, got {type(nested).__name__}")
    return flat_tensors({"all": nested})
