"""The traffic benchmark: rows and ratios of programs that XLA:TPU compiles on this machine."""

import json

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
    assert all(0 < row["hbm_bytes"] < row["bytes"] for row in rows)
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


def test_a_program_that_cannot_be_printed_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(traffic, "compile_step", lambda *_: None)
    monkeypatch.setattr(traffic, "text_of", lambda _: None)
    with pytest.raises(ValueError, match="XLA cannot print this program for the topology"):
        next(traffic.measure(["resnet_tiny"], [], [], batch=8, side=16))


def test_rows_of_an_earlier_run_are_kept(tmp_path):
    path, settings = tmp_path / "traffic.json", {"chip_batch": 8, "date": "today"}
    assert traffic.kept_rows(path, settings) == []
    row = {"network": "resnet_tiny", "layer": "bn_relu"} | dict.fromkeys(
        ("bytes", "hbm_bytes", "temporary_bytes"), 7
    )
    path.write_text(json.dumps(settings | {"date": "yesterday", "rows": [row]}))
    assert traffic.kept_rows(path, settings) == [row]
    # A row that is known needs no device.
    assert [*traffic.measure(["resnet_tiny"], [], [], batch=8, side=16, known=[row])] == [row]
    with pytest.raises(ValueError, match="has chip_batch=8, not 4: name another file"):
        traffic.kept_rows(path, {"chip_batch": 4})


def test_a_layer_is_a_name_or_an_equation():
    assert traffic.constructor("evonorm_s0")().__class__.__name__ == "EvoNormS0"
    assert str(traffic.constructor("x / std_wh(x)")().graph) == "x / std_wh(x)"
    with pytest.raises(ValueError, match=r"unknown layer 'evonorm_s9'"):
        traffic.constructor("evonorm_s9")
