"""A generator from the training to its scores and sheets, by the mains as a user starts them."""

import json

import numpy as np
import pytest
from PIL import Image
from support import mains


@pytest.mark.exhaustive
def test_a_generator_is_trained_scored_and_sampled(tmp_path):
    workdir = tmp_path / "run"
    settings = [
        "--config=experiments/configs/gan_digits.py:quick",
        f"--config.scores.cache={tmp_path / 'cache'}",
    ]
    trained = mains.run("generate", *settings, f"--workdir={workdir}")
    assert trained.returncode == 0, trained.stderr
    scores = json.loads((workdir / "scores.json").read_text())
    assert set(scores["frechet"]) == {"value", "floor", "ceiling"} and 0 <= scores["agreement"] <= 1
    assert f"digit Frechet distance {scores['frechet']['value']:.3g} (floor" in trained.stdout
    with np.load(workdir / "samples.npz") as samples:
        assert (
            samples["images"].shape == (200, 28, 28, 1)
            and np.bincount(samples["labels"]).tolist() == [20] * 10
        )
    drawn = mains.run("sample", f"--workdir={workdir}", "--truncation=0.5", "--method=scaled", "--sweep=1")
    assert drawn.returncode == 0, drawn.stderr
    for path in drawn.stdout.splitlines():
        with Image.open(path) as picture:
            assert picture.mode == "L" and min(picture.size) >= 56
    assert len(list((workdir / "sheets").iterdir())) == 5 + 1  # and that of the only evaluation
    evaluated = mains.run("evaluate", f"--workdir={workdir}", "--checkpoint=best")
    again = json.loads((workdir / "scores-best-classifier.json").read_text())
    assert evaluated.returncode == 0 and again["frechet"] == pytest.approx(scores["frechet"], rel=1e-3)
    refused = mains.run("evaluate", f"--workdir={workdir}", f"--inception={tmp_path / 'none.npz'}")
    assert refused.returncode == 2 and "there is no file" in refused.stderr.splitlines()[-1]
