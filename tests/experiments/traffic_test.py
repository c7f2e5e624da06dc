"""The traffic benchmark: rows and ratios of programs that XLA:TPU compiles on this machine."""

import jax
import pytest

from experiments.benchmarks import traffic


@pytest.fixture(scope="module")
def devices():
    pytest.importorskip("libtpu")
    return traffic.get_topology("v5e:2x2").devices


def test_rows_are_relative_to_the_reference(devices):
    layers = ["abs(x) / std_bwh(x)"]
    rows = list(traffic.measure(["resnet_tiny"], layers, devices, batch=8, side=16))
    assert [row["layer"] for row in rows] == ["bn_relu", *layers]
    assert rows[0]["bytes_ratio"] == rows[0]["temporary_bytes_ratio"] == 1
    assert rows[1]["bytes_ratio"] == rows[1]["bytes"] / rows[0]["bytes"] < 1.2
    header = {
        "topology": "v5e:2x2",
        "chip_batch": 8,
        "image_size": 16,
        "jax": jax.__version__,
        "date": "today",
    }
    text = traffic.table({**header, "rows": rows})
    assert "resnet_tiny" in text and "abs(x) / std_bwh(x)" in text and text.startswith("v5e:2x2, 8 images")


def test_a_layer_is_a_name_or_an_equation():
    assert traffic.constructor("evonorm_s0")().__class__.__name__ == "EvoNormS0"
    assert str(traffic.constructor("x / std_wh(x)")().graph) == "x / std_wh(x)"
    with pytest.raises(ValueError, match=r"unknown layer 'evonorm_s9'"):
        traffic.constructor("evonorm_s9")
