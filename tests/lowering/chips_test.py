"""Names of slices: topologies and accelerator types are the same slices, and unknown ones get a hint."""

import pytest

from evonorms_jax.lowering.chips import CHIPS, chips_of, topology_name


@pytest.mark.parametrize(
    ("accelerator", "topology"),
    [
        ("v5litepod-8", "v5e:2x4"),
        ("v5e-8", "v5e:2x4"),
        ("v6e-1", "v6e:1x1"),
        ("v6e-256", "v6e:16x16"),
        ("v4-8", "v4:2x2x1"),  # v4 and v5p count TensorCores, two to a chip
        ("v5p-16", "v5p:2x2x2"),
    ],
)
def test_an_accelerator_type_names_a_topology(accelerator, topology):
    assert topology_name(accelerator) == topology
    assert topology_name(topology) == topology


@pytest.mark.parametrize(
    ("name", "near"),
    [("v5e:3x3", "v5e:"), ("v5litepod-9", "v5litepod-8"), ("v6e-12", "v6e-"), ("a100", "v")],
)
def test_an_unknown_slice_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"unknown topology '{name}': the nearest are .*{near}"):
        topology_name(name)


def test_chips_of_a_slice_are_counted():
    assert chips_of("v5e:2x4") == 8
    assert chips_of("v4:2x2x4") == 16


def test_a_newer_chip_is_faster_and_every_number_is_plausible():
    for chip in CHIPS.values():
        assert 1e14 < chip.flops < 1e16
        assert 1e11 < chip.bandwidth < 1e13
        assert 8 * 2**30 < chip.hbm < 256 * 2**30
    assert CHIPS["v6e"].flops > CHIPS["v5p"].flops > CHIPS["v4"].flops > CHIPS["v5e"].flops
