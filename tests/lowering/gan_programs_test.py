"""A tiny form of the programs of image synthesis, lowered and compiled for a TPU on this machine."""

import pytest
from support.gan_configs import tiny_config, tiny_layouts

from evonorms_jax.lowering import check
from evonorms_jax.lowering.programs import measure
from evonorms_jax.lowering.topology import get_topology

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def programs():
    config = tiny_config(statistics_batch=4, accumulate=2, dtype="bfloat16", discriminator_steps=2)
    topology = get_topology("v5litepod-4")
    with tiny_layouts():
        yield {one.name: one for one in check.programs_of(config, topology)}, topology


def test_all_programs_can_be_lowered_for_a_slice(programs):
    found, _ = programs
    assert list(found) == ["initialization", "step of both networks", "sampling"]
    for program in found.values():
        assert "func.func public @main" in program.lower().as_text()


def test_sampling_compiles_for_a_chip(programs):
    found, topology = programs
    footprint = measure(found["sampling"], topology.chip)
    assert not footprint.excess and footprint.step.flops > 0 and footprint.program.images == 8


@pytest.mark.exhaustive
def test_the_step_compiles_for_a_chip_and_counts_every_part(programs):
    found, topology = programs
    footprint = measure(found["step of both networks"], topology.chip)
    assert not footprint.excess and footprint.step.flops > 0 and not footprint.once_only
