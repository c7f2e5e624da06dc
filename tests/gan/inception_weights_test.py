"""Files of Inception weights: three kinds with one content, and the first tensor that does not fit."""

import pickle
import sys
import types

import numpy as np
import pytest

from evonorms_jax.gan import inception_weights
from evonorms_jax.gan.features import inception_network
from evonorms_jax.gan.inception_scores import open_network
from evonorms_jax.gan.scoring import Names, ScoreSettings

SHAPES = {
    "Mixed_5b/branch5x5_1/conv/kernel": (1, 3, 4, 5),
    **{f"Mixed_5b/branch5x5_1/bn/{leaf}": (5,) for leaf in ("scale", "bias", "mean", "var")},
    "fc/kernel": (5, 7),
    "fc/bias": (7,),
}


@pytest.fixture(autouse=True)
def few_tensors(monkeypatch):
    """A network of one unit and the head has all kinds of tensors in a thousandth of the size."""
    monkeypatch.setattr(inception_weights, "shapes", lambda: SHAPES)


@pytest.fixture
def tensors(rng):
    return {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def nested(tensors):
    found = {}
    for name, values in tensors.items():
        *parents, leaf = name.split("/")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = values
    return found


def torch_state(tensors):
    """A state dict as PyTorch has it, with a counter that some versions write."""
    unit = "Mixed_5b/branch5x5_1"
    names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    state = {f"Mixed_5b.branch5x5_1.bn.{new}": tensors[f"{unit}/bn/{old}"] for old, new in names.items()}
    state["Mixed_5b.branch5x5_1.conv.weight"] = tensors[f"{unit}/conv/kernel"].transpose(3, 2, 0, 1)
    state["Mixed_5b.branch5x5_1.bn.num_batches_tracked"] = np.int64(3)
    return state | {"fc.weight": tensors["fc/kernel"].T, "fc.bias": tensors["fc/bias"]}


class FakeTensor:
    def __init__(self, values):
        self.values = values

    def detach(self):
        return self

    def numpy(self):
        return self.values


def fake_torch(state):
    def load(path, map_location, weights_only):
        assert map_location == "cpu" and weights_only
        return {name: FakeTensor(values) for name, values in state.items()}

    return types.SimpleNamespace(load=load)


def test_all_kinds_of_files_hold_the_same_network(tensors, tmp_path, monkeypatch):
    weights = inception_weights.weights_of(tensors)
    assert weights.variables["params"]["fc"]["kernel"].shape == (5, 7)
    unit = weights.variables["batch_stats"]["Mixed_5b"]["branch5x5_1"]["bn"]
    np.testing.assert_array_equal(unit["var"], tensors["Mixed_5b/branch5x5_1/bn/var"])
    inception_weights.save(tmp_path / "own.npz", weights)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(torch_state(tensors)))
    (tmp_path / "state.pth").touch()
    four_axes = {
        name: values.reshape(1, 1, 1, -1) if "/bn/" in name else values for name, values in tensors.items()
    }
    for protocol in (2, 5):
        (tmp_path / f"jax{protocol}.pickle").write_bytes(pickle.dumps(nested(four_axes), protocol))
    for file in tmp_path.iterdir():
        assert inception_weights.load(file).crc == weights.crc
    tensors["fc/bias"][0] += 1e-6
    assert inception_weights.weights_of(tensors).crc != weights.crc


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc/kernel": np.zeros((5, 6), np.float32)}, r"fc/kernel must be \(5, 7\), got \(5, 6\)"),
        ({"Mixed_5b/branch5x5_1/bn/var": None}, "it has no tensor Mixed_5b/branch5x5_1/bn/var"),
        ({"fc/bias": np.full(7, np.nan, np.float32)}, "fc/bias must be finite numbers"),
        ({"fc/bias": np.zeros(7, int)}, "fc/bias must be finite numbers, got int64"),
    ],
)
def test_the_first_wrong_tensor_is_named(tensors, tmp_path, change, message):
    changed = {name: values for name, values in (tensors | change).items() if values is not None}
    np.savez(tmp_path / "wrong.npz", **changed)
    with pytest.raises(ValueError, match=message):
        inception_weights.load(tmp_path / "wrong.npz")


class Harmful:
    def __reduce__(self):
        return print, ("code of the file",)


def test_a_pickle_cannot_run_code(tmp_path, capsys):
    for content in ({"fc": Harmful()}, {"fc": np.array([Harmful()], object)}):
        (tmp_path / "harmful.pickle").write_bytes(pickle.dumps(content))
        with pytest.raises(ValueError, match=r"refers to builtins.print, which is no NumPy array"):
            inception_weights.load(tmp_path / "harmful.pickle")
    assert not capsys.readouterr().out


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    for name in ("a.npz", "b.pickle"):
        (tmp_path / name).write_bytes(b"no such file")
        with pytest.raises(ValueError, match=r"damaged|cannot be read as a pickle"):
            inception_weights.load(tmp_path / name)
    (tmp_path / "list.pickle").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match="must hold a dict of arrays, got list"):
        inception_weights.load(tmp_path / "list.pickle")
    with pytest.raises(ValueError, match=r"read from .npz, .pth, .pickle, .pkl, got .*graph.pb"):
        inception_weights.load(tmp_path / "graph.pb")
    with pytest.raises(ValueError, match=r"there is no file .*pt_inception-2015-12-05-6726825d.pth"):
        inception_weights.load(tmp_path / "missing.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "weights.pth").touch()
    with pytest.raises(ModuleNotFoundError, match="pip install torch, or convert the file once"):
        inception_weights.load(tmp_path / "weights.pth")


def test_without_weights_one_line_says_which_file_to_get(monkeypatch):
    monkeypatch.delenv(inception_weights.VARIABLE, raising=False)
    with pytest.raises(ValueError, match=r"--inception=PATH .*pt_inception-2015-12-05") as error:
        open_network(ScoreSettings("inception"))
    assert "\n" not in str(error.value)


def test_only_this_network_gives_an_fid(tensors):
    network = inception_network(inception_weights.weights_of(tensors), "clean")
    assert Names.of(network, "digit").frechet == "FID"
    assert Names.of(network._replace(name="classifier"), "digit").frechet == "digit Frechet distance"
    assert network.identity()["resize"] == "clean" and len(network.identity()["weights_crc"]) == 8
