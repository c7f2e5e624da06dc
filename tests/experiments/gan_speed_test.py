"""The benchmark beside PyTorch: both sides compute the same. Times are never asserted."""

import importlib.util
import json
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from support import mains

from evonorms_jax.errors import UserError
from evonorms_jax.gan.construction import build_networks
from evonorms_jax.gan.layouts import LAYOUTS
from experiments import process
from experiments.benchmarks import gan_speed

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed: pip install torch"
)
SMALL = {"batch_size": 4, "width": 4, "steps": 1, "rounds": 1, "warmup": 1}


def test_without_pytorch_one_line_names_the_command_that_installs_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "experiments.benchmarks.torch_biggan", raising=False)
    with pytest.raises(SystemExit) as ended, process.errors_in_a_line():
        gan_speed.measure({"network": "biggan", **SMALL})
    assert ended.value.code == process.FAILED
    assert capsys.readouterr().err == "error: the baseline needs torch: pip install torch\n"


def test_networks_of_other_sizes_are_refused():
    counts = {gan_speed.OURS: {"generator": 1234, "discriminator": 5}}
    gan_speed.check_parameters(counts | {gan_speed.THEIRS: {"generator": 1234, "discriminator": 5}})
    message = "the discriminators must have the same number of parameters, got 5 of evonorms_jax and 6 of"
    with pytest.raises(UserError, match=message):
        gan_speed.check_parameters(counts | {gan_speed.THEIRS: {"generator": 1234, "discriminator": 6}})


# -- Both sides


def variables_of(network, key, *inputs, **options):
    """Variables after the start, all parameters larger by half, so that sigma is not 1 anywhere."""
    variables = network.init(key, *inputs, **options)
    return variables | {"params": jax.tree.map(lambda leaf: 1.5 * leaf, variables["params"])}


def load(network, params, side):
    """Copies our parameters into a network of PyTorch, whose bottom map has the side."""
    import torch

    left = dict(network.named_parameters())
    for (*modules, leaf), values in flatten_dict(params).items():
        values = np.asarray(values)
        if modules[:1] == ["bottom"]:  # the rows of a map are ordered H, W, C here and C, H, W there
            values = np.moveaxis(values.reshape(*values.shape[:-1], side, side, -1), -1, -3)
            values = values.reshape(*values.shape[:-3], -1)
        if leaf == "kernel":
            values = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T
        number = modules[0].removeprefix("block_")
        modules = ["blocks", str(int(number) - 1), *modules[1:]] if number.isdecimal() else modules
        module = ".".join(modules).replace("norm_final.norm", "norm_final")
        leaf = leaf if leaf == "bias" else "weight"
        parameter = left.pop(f"{module}.{leaf}", None)
        if parameter is None:
            parameter = left.pop(f"{module}.parametrizations.weight.original")
        with torch.no_grad():
            parameter.copy_(torch.tensor(values.reshape(parameter.shape)))
        assert values.shape == tuple(parameter.shape), module
    assert not left


@needs_torch
@pytest.mark.parametrize("name", LAYOUTS)
def test_both_sides_make_the_same_images_and_logits_of_the_same_parameters(name):
    import torch

    config = gan_speed._config({"network": name, **SMALL})
    ours = build_networks(config, 10, 1)
    theirs = gan_speed.make_torch_networks(gan_speed.import_baseline(), ours)
    z_key, *keys = jax.random.split(jax.random.key(0), 3)
    z, labels = jax.random.normal(z_key, (5, ours.generator.latent)), jnp.array([3, 1, 4, 1, 9])
    variables = variables_of(ours.generator, keys[0], z, labels, train=False)
    expected, _ = ours.generator.apply(variables, z, labels, train=True, mutable=["spectral", "batch_stats"])
    load(theirs[0], variables["params"], ours.generator.bottom)
    there = torch.tensor(np.asarray(z)), torch.tensor(np.asarray(labels)).long()
    found = theirs[0](*there).detach()
    np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, atol=1e-4)

    variables = variables_of(ours.discriminator, keys[1], expected, labels)
    logits, _ = ours.discriminator.apply(variables, expected, labels, mutable=["spectral"])
    load(theirs[1], variables["params"], ours.generator.bottom)
    found = theirs[1](found, there[1]).detach()
    np.testing.assert_allclose(found, logits, rtol=1e-3, atol=1e-3)
    assert np.std(logits) > 0.01  # of images and labels that differ


def check(measured, name):
    assert measured["machine"].keys() >= {"device", "cores", "jax", "torch"}
    assert measured["settings"] == {"network": name, **SMALL}
    assert all(measured["parameters"][network] > 0 for network in ("generator", "discriminator"))
    rows = measured["rows"]
    assert [row["side"] for row in rows] == [gan_speed.OURS, gan_speed.THEIRS]
    losses = {"discriminator_loss", "generator_loss"}
    times = {"milliseconds", "least", "largest", "steps_per_second", "ratio"}
    for row in rows:
        assert row.keys() == {"side"} | times | losses
        assert all(row[key] > 0 for key in times)
        assert all(math.isfinite(row[key]) for key in losses)
    assert rows[0]["ratio"] == 1


@needs_torch
def test_both_sides_of_the_deep_networks_take_steps():
    measured = gan_speed.measure({"network": "biggan_deep", **SMALL})
    check(measured, "biggan_deep")
    assert json.loads(json.dumps(measured)) == measured
    assert len(gan_speed.table(measured).columns) == 5


@needs_torch
def test_the_command_prints_the_table_and_writes_the_results(tmp_path):
    settings = [f"--{name}={value}" for name, value in SMALL.items()]
    done = mains.run("benchmarks.gan_speed", *settings, f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert gan_speed.THEIRS in done.stdout and str(tmp_path / "gan_speed.json") in done.stdout
    check(json.loads((tmp_path / "gan_speed.json").read_text()), "biggan")
