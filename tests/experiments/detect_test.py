"""The main that trains a detector, and its checkpoints on the command line."""

import json

import pytest
from support import mains

SIZES = {"train_size": 24, "validation_size": 8, "test_size": 6}


@pytest.mark.exhaustive
def test_a_detector_is_trained_evaluated_and_drawn(tmp_path):
    workdir, out = tmp_path / "run", tmp_path / "out"
    data = [f"--config.data.{name}={size}" for name, size in SIZES.items()]
    config = "--config=experiments/configs/detect_digits.py:quick"
    folder = f"--config.data.data_dir={tmp_path / 'scenes'}"
    done = mains.run("detect", config, f"--workdir={workdir}", folder, *data)
    assert done.returncode == 0, done.stderr
    assert "making digit scenes" in done.stderr or "38/38 (100 %)" in done.stderr
    assert "test box AP " in done.stdout and "after 20 steps" in done.stdout
    written = json.loads((workdir / "scores.json").read_text())
    result = json.loads((workdir / "result.json").read_text())
    assert written["part"] == "test" and written["box"]["AP"] == result["test"]["box_AP"]

    done = mains.run("evaluate", f"--workdir={workdir}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "scores.json").read_text()) == written
    assert (out / "detections.json").read_text() == (workdir / "detections.json").read_text()

    images = next((tmp_path / "scenes").glob("digits*")) / "test2017"
    done = mains.run("evaluate", f"--workdir={workdir}", f"--images={images}", f"--out={tmp_path / 'drawn'}")
    assert done.returncode == 0 and "detections on 6 pictures are in" in done.stdout, done.stderr
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 6


def test_pictures_need_a_folder_for_the_drawn_ones(tmp_path):
    done = mains.run("evaluate", f"--workdir={tmp_path}", f"--images={tmp_path}")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --images needs --out, a folder for the drawn pictures"
