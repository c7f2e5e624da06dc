"""Tiny forms of every kind of program, compiled for a TPU on this machine."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from evonorms_jax.lowering import check
from evonorms_jax.lowering.programs import TpuProgram, compile_ahead, footprint, measure
from evonorms_jax.lowering.topology import get_topology
from evonorms_jax.models.convolution import convolve, max_pool
from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet
from evonorms_jax.models.networks import ANCHORS, Network
from evonorms_jax.search_space import CATALOG
from evonorms_jax.search_space.encoding import CAPACITY, encode
from evonorms_jax.search_space.target import building_for, compiler_options
from evonorms_jax.search_space.universal import apply_encoded
from evonorms_jax.training.classification import shapes_on
from experiments.configs import imagenet_resnet50, imagenet_vit, search_cifar10_b, train

pytestmark = pytest.mark.slow


two_sites = functools.partial(
    InvertedBottleneckNet, stages=(), stem_features=8, stem_stride=1, head_features=8
)


@pytest.fixture(scope="module")
def topology():
    return get_topology("v5litepod-4")


@pytest.fixture(scope="module", autouse=True)
def tiny_anchor():
    ANCHORS["two_sites"] = Network("two_sites", "two convolutions", two_sites)
    yield
    del ANCHORS["two_sites"]


def tiny_search():
    config = search_cifar10_b.get_config("quick")
    config.anchors = ("two_sites",)
    config.data.update({"image_size": 10, "crop": 8, "flip": True})
    config.proxy.batch_size = 8
    config.rejection.stability_batch_size = config.proxy.eval_batch_size = 8
    config.evolution.round_size = 2
    return config


def tiny_training():
    config = train.get_config("quick")
    config.model.name = "two_sites"
    config.data.update({"source": "synthetic", "image_size": 8, "crop": 8})
    config.batch_size = config.eval_batch_size = 16
    config.accumulate, config.statistics_batch = 2, 4
    return config


def programs(config, topology):
    return {one.name.removeprefix("two_sites: "): one for one in check.programs_of(config, topology)}


@pytest.fixture(scope="module")
def search(topology):
    built = programs(tiny_search(), topology)
    return {name: measure(built[name], topology.chip) for name in ("stability test", "universal training")}


@pytest.fixture(scope="module")
def training(topology):
    program = programs(tiny_training(), topology)["training step"]
    compiled = compile_ahead(program)
    return compiled, footprint(program, compiled, 0.0, 0.0, topology.chip)


def test_the_cpu_devices_stay_as_they_are(topology):
    assert jax.default_backend() == "cpu"
    assert len(topology.devices) == 4
    assert {device.platform for device in topology.devices} == {"tpu"}
    assert jnp.sum(jnp.ones(3)) == 3


@pytest.mark.parametrize("name", ["stability test", "universal training"])
def test_the_programs_of_a_search_compile_and_fit(topology, search, name):
    found = search[name]
    assert 0 < found.total_memory < 2**28
    assert found.excess == 0
    assert found.step.flops > 0
    assert not found.once_only  # every loop is counted


def test_a_run_is_as_many_steps_as_the_config_says(search):
    config = tiny_search()
    run, step = search["universal training"].run, search["universal training"].step
    validation = run.flops / config.evolution.round_size - config.proxy.steps * step.flops
    assert 0 < validation < 40 * step.flops  # 16 batches of validation, forward only
    climb = search["stability test"]
    steps = 2 * config.rejection.stability_steps * config.evolution.round_size
    assert climb.run.flops == pytest.approx(steps * climb.step.flops, rel=0.05)


def test_the_training_step_compiles_with_convolutions_of_the_target(training):
    compiled, found = training
    assert re.search(r" convolution\(", compiled.as_text())
    assert found.excess == 0
    assert found.program.images == 16
    assert not found.once_only


def test_equal_sites_share_their_code(topology):
    """The code of a search's program grows with the shapes of its sites, and not with their number."""
    encoded, width = encode(CATALOG["evonorm_b0"]), 128
    weights, stats = jnp.ones((width, width)), jnp.ones((CAPACITY, width))

    def sites(count):
        def run(encoded, x, v):
            for _ in range(count):
                x = apply_encoded(encoded, x @ weights, v, v, stats, train=True)[0]
            return x

        shapes = shapes_on((encoded, jnp.ones((16, 64, width)), jnp.ones(width)), topology.alone)
        with building_for("tpu"):
            return jax.jit(run).lower(*shapes)

    def code(count, options):
        compiled = compile_ahead(TpuProgram("sites", lambda: sites(count), "", options=options))
        return compiled.memory_analysis().generated_code_size_in_bytes

    shared = compiler_options("tpu")
    assert programs(tiny_search(), topology)["universal training"].options == shared
    assert code(6, shared) < 0.6 * code(6, {})


def test_a_compiled_candidate_is_lowered_for_the_target(topology):
    config = tiny_search()
    config.executor = "auto"
    lowered = programs(config, topology)["one compiled candidate"].lower()
    assert "stablehlo.convolution" in lowered.as_text()


def test_convolutions_follow_the_platform_that_is_built_for():
    x, kernel = jnp.ones((1, 4, 4, 4)), jnp.ones((3, 3, 4, 4))
    conv = jax.jit(lambda x, kernel: max_pool(convolve(x, kernel), 3))
    for platform, uses_lax in (("tpu", True), ("cpu", False), ("gpu", True)):
        with building_for(platform):
            text = conv.lower(x, kernel).as_text()
        assert ("stablehlo.convolution" in text) == uses_lax
        assert ("reduce_window" in text) == uses_lax
    assert "stablehlo.convolution" not in conv.lower(x, kernel).as_text()


@pytest.mark.parametrize("recipe", [imagenet_resnet50, imagenet_vit])
def test_a_recipe_that_needs_imagenet_is_checked_without_it(recipe, topology):
    names = [one.name for one in check.programs_of(recipe.get_config(), topology)]
    assert names == ["initialization", "training step", "evaluation"]


def test_what_does_not_fit_is_named_with_the_excess_and_the_setting(topology):
    def too_large():
        shape = jax.ShapeDtypeStruct(
            (5, 2**30), jnp.float32, sharding=SingleDeviceSharding(topology.devices[0])
        )
        return jax.jit(lambda x: x * 2).lower(shape)

    found = measure(TpuProgram("training step", too_large, "batch_size"), topology.chip)
    assert found.excess > 2**30
    line = check.complaint([found], topology)
    assert re.fullmatch(r"training step needs [\d.]+ GiB more than the 16 GiB of .*: lower batch_size", line)
    assert not check.to_json([found], topology, [])["fits"]
