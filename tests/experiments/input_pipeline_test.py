"""The benchmark of the input pipeline runs and reports every way. Times are never asserted."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support import mains

from evonorms_jax.data.photographs import Box
from experiments.benchmarks import input_pipeline


def test_a_photograph_is_like_those_of_imagenet(rng):
    encoded = input_pipeline.photograph(rng)
    image = np.asarray(Image.open(io.BytesIO(encoded)))
    assert image.shape == (375, 500, 3) and 95e3 < len(encoded) < 125e3
    assert 40 < image.std() < 70 and 90 < image.mean() < 150


def test_both_decoders_show_the_same(rng):
    encoded = input_pipeline.photograph(rng)
    images = [
        decode(encoded, lambda height, width: Box(24, 32, 320, 320), 40).astype(int)
        for decode in input_pipeline.DECODERS.values()
    ]
    assert images[0].shape == images[1].shape == (40, 40, 3)
    assert np.abs(images[0] - images[1]).mean() < 8 < 30 < np.abs(images[0] - images[1][::-1]).mean()


@pytest.mark.exhaustive
def test_the_command_prints_every_way_and_writes_the_results(tmp_path):
    flags = ["--pictures=4", "--rounds=1", "--size=32", "--images_per_second=500", f"--workdir={tmp_path}"]
    result = mains.run("benchmarks.input_pipeline", *flags, "--counts=1", "--seconds=0")
    assert result.returncode == 0, result.stderr
    measured = json.loads((tmp_path / "input_pipeline.json").read_text())
    ways = [(row["decoder"], row["augment"]) for row in measured["rows"]]
    ours, pillow = input_pipeline.OURS, input_pipeline.PILLOW
    assert ways == [(ours, "none"), (ours, "randaugment"), (pillow, "none"), (pillow, "randaugment")]
    for row in measured["rows"]:
        assert row["per_core"] > 0 and abs(row["cores"] * row["per_core"] - 500) < 1e-6
    ways = [(row["augment"], row["kind"], row["count"]) for row in measured["pipeline"]]
    kinds = ("threads", "processes")
    assert ways == [(augment, kind, 1) for augment in ("none", "randaugment") for kind in kinds]
    for row in measured["pipeline"]:
        assert row["per_second"] > 0 and abs(row["cores"] * row["per_second"] - 500) < 1e-6
    assert [row["scaling"] for row in measured["pipeline"][::2]] == [1, 1]
    assert "500 images/s is an assumption" in result.stdout and "written to" in result.stdout


def test_a_wrong_number_of_threads_is_named():
    with pytest.raises(ValueError, match="--counts takes whole numbers above 0, got '0'"):
        input_pipeline._counts(["2", "0"])
