"""The trained EvoNorm networks of timm: their tensors, files that are wrong, and logits beside timm's."""

import math
import sys
import zlib

import jax
import numpy as np
import pytest
from support.mains import run

from evonorms_jax.layers import norm_act
from evonorms_jax.training import timm_weights

#: Of timm 1.0.31: the number of parameters, of tensors, and the CRC-32 of the sorted lines "name shape",
#: where a shape has no axes of size 1.
TIMM = {
    "resnetv2_50d_evos": (25_591_368, 210, "a7e7ab5f"),
    "regnetz_c16_evos": (13_487_816, 340, "3eeec864"),
    "regnetz_d8_evos": (23_464_296, 378, "bc94a219"),
}


def torch_tensors(name, fill):
    """Tensors as in timm's file; `fill` makes one of a shape."""
    shapes = timm_weights.shapes(name)
    return {timm_weights.timm_name(name, path): fill(torch_shape(shape)) for path, shape in shapes.items()}


def torch_shape(shape):
    return shape[::-1] if len(shape) < 4 else (shape[3], shape[2], shape[0], shape[1])


@pytest.mark.parametrize("name", TIMM)
def test_names_shapes_and_number_of_parameters_are_timms(name):
    tensors = torch_tensors(name, tuple)
    lines = [f"{key} {tuple(size for size in shape if size != 1)}" for key, shape in tensors.items()]
    crc = zlib.crc32("\n".join(sorted(lines)).encode())
    count = sum(math.prod(shape) for shape in tensors.values())
    assert (count, len(tensors), f"{crc:08x}") == TIMM[name]


@pytest.fixture
def two_tensors(monkeypatch):
    """A network of a convolution and a classifier has all kinds of tensors in a thousandth of the size."""
    shapes = {"stem/kernel": (3, 3, 2, 4), "norm_stem/v": (4,), "classifier/dense/kernel": (4, 5)}
    monkeypatch.setattr(timm_weights, "shapes", lambda name: shapes)
    return torch_tensors(
        "regnetz_c16_evos", lambda shape: np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    )


@pytest.fixture
def written(tmp_path):
    """Writes tensors as timm does, and returns the path."""
    files = pytest.importorskip("safetensors.numpy", reason="the extra `weights` is not installed")

    def write(tensors):
        files.save_file(tensors, tmp_path / "model.safetensors")
        return tmp_path / "model.safetensors"

    return write


def test_axes_come_in_the_order_of_flax(two_tensors, written):
    found = timm_weights.convert(written(two_tensors), "regnetz_c16_evos")
    kernel = found["stem/kernel"]
    assert kernel.shape == (3, 3, 2, 4)
    assert kernel[2, 1, 0, 3] == two_tensors["stem.conv.weight"][3, 0, 2, 1]
    np.testing.assert_array_equal(found["classifier/dense/kernel"], two_tensors["head.fc.weight"].T)
    np.testing.assert_array_equal(found["norm_stem/v"], two_tensors["stem.bn.v"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem.bn.v": None}, r"is not regnetz_c16_evos: it has no tensor stem.bn.v \(4,\)"),
        ({"stem.bn.v": np.ones(3, np.float32)}, r"stem.bn.v must be \(4,\), got \(3,\)"),
        ({"stem.bn.v": np.full(4, np.nan, np.float32)}, "is damaged: stem.bn.v must be finite numbers"),
        (
            {"stem.bn.running_var": np.ones(4, np.float32)},
            "a tensor stem.bn.running_var that the network lacks",
        ),
    ],
)
def test_the_first_wrong_tensor_is_named(two_tensors, written, change, message):
    changed = {name: values for name, values in (two_tensors | change).items() if values is not None}
    with pytest.raises(ValueError, match=message):
        timm_weights.convert(written(changed), "regnetz_c16_evos")


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"unknown network 'regnetz_c16'; did you mean 'regnetz_c16_evos'"):
        timm_weights.convert(tmp_path / "model.safetensors", "regnetz_c16")
    with pytest.raises(ValueError, match=r"read from .safetensors, got .*model.pth"):
        timm_weights.convert(tmp_path / "model.pth", "regnetz_c16_evos")
    with pytest.raises(ValueError, match=r"there is no file .* https://huggingface.co/timm/regnetz_c16_evos"):
        timm_weights.convert(tmp_path / "model.safetensors", "regnetz_c16_evos")
    (tmp_path / "model.safetensors").write_bytes(b"no such file at all")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'evonorms-jax\[weights\]'"):
        timm_weights.convert(tmp_path / "model.safetensors", "regnetz_c16_evos")
    monkeypatch.undo()
    pytest.importorskip("safetensors", reason="the extra `weights` is not installed")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        timm_weights.convert(tmp_path / "model.safetensors", "regnetz_c16_evos")


def test_npz_files_that_cannot_be_read(two_tensors, tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        timm_weights.load(tmp_path / "missing.npz")
    (tmp_path / "damaged.npz").write_bytes(b"no such file")
    with pytest.raises(ValueError, match="is damaged"):
        timm_weights.load(tmp_path / "damaged.npz")
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(ValueError, match="does not name its network"):
        timm_weights.load(tmp_path / "other.npz")
    timm_weights.save(tmp_path / "short.npz", "regnetz_c16_evos", {"stem/kernel": np.ones((3, 3, 2, 4))})
    with pytest.raises(ValueError, match=r"it has no tensor norm_stem/v \(4,\)"):
        timm_weights.load(tmp_path / "short.npz")


def test_s0a_is_s0_and_without_its_nonlinearity_a_division(rng):
    x = rng.normal(size=(2, 5, 5, 32)).astype(np.float32)
    make = norm_act("evonorm_s0a", group_size=16)
    found, variables = make().init_with_output(jax.random.key(0), x)
    same = norm_act("evonorm_s0", group_size=16, epsilon=1e-3)().apply(variables, x)
    np.testing.assert_array_equal(found, same)
    grouped = x.reshape(2, 25, 2, 16)
    expected = (grouped / np.sqrt(grouped.var(axis=(1, 3), keepdims=True) + 1e-3)).reshape(x.shape)
    linear, variables = make.affine().init_with_output(jax.random.key(0), x)
    assert set(variables["params"]) == {"scale", "bias"}
    np.testing.assert_allclose(linear, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(make.norm().apply(variables, x), linear)


def test_a_file_without_its_library_or_of_another_network_ends_the_main_in_one_line(tmp_path):
    flags = "--network=regnetz_d8_evos", f"--output={tmp_path / 'out.npz'}"
    done = run("convert_timm", f"--weights={tmp_path / 'model.safetensors'}", *flags)
    assert done.returncode == 2
    assert "there is no file" in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_logits_are_those_of_timm(name, written, tmp_path):
    """With random weights in all tensors, at an even and an odd side, and through both files."""
    timm = pytest.importorskip("timm", reason="timm and torch are not installed: no logits to compare with")
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = timm.create_model(name, pretrained=False).eval()
    with torch.no_grad():
        for key, values in theirs.named_parameters():
            if values.ndim == 1:
                values.add_(0.3 * torch.randn_like(values))
            elif key.startswith("head"):
                values.copy_(0.1 * torch.randn_like(values))
    tensors = {key: values.numpy() for key, values in theirs.state_dict().items()}
    timm_weights.save(tmp_path / "out.npz", name, timm_weights.convert(written(tensors), name))
    model, variables = timm_weights.load(tmp_path / "out.npz")
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    for side in (96, 77):
        images = torch.rand(2, 3, side, side)
        with torch.no_grad():
            expected = theirs(2 * images - 1).numpy()
        found = np.asarray(apply(2 * images.numpy().transpose(0, 2, 3, 1) - 1))
        assert np.abs(expected).max() > 0.1 and np.ptp(expected[0] - expected[1]) > 1e-2
        np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
