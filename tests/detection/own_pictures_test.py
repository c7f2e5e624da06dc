"""Detections on a user's own pictures, from the checkpoint of a work directory alone."""

import io
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from support.small_detection import small

from evonorms_jax.detection import coco
from evonorms_jax.detection.own_pictures import draw_folder
from evonorms_jax.detection.task import build_task, make_programs
from evonorms_jax.layers import layer_file
from evonorms_jax.runs.checkpoint import Checkpoints
from evonorms_jax.runs.workdir import claim_workdir
from evonorms_jax.search_space import CATALOG
from evonorms_jax.training import evaluation, loop
from evonorms_jax.training.mesh import data_mesh


@pytest.fixture(scope="module")
def workdir(digits, tmp_path_factory):
    """A work directory with a checkpoint of the first state."""
    config, folder = small(digits), tmp_path_factory.mktemp("run") / "run"
    categories = coco.open_coco(digits).categories
    programs = make_programs(config, categories, 24, data_mesh(jax.devices()[:1]))
    described = loop.describe(config) | {"categories": categories.to_json()}
    with claim_workdir(folder, described), Checkpoints(folder / loop.CHECKPOINTS) as checkpoints:
        checkpoints.save(3, record={}, arrays=programs.init(jax.random.key(0)))
    return folder


@pytest.fixture
def pictures(tmp_path, rng):
    """A photograph on its side, a picture with alpha, a damaged one and a text."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = rng.integers(0, 255, (50, 80, 4)).astype(np.uint8)
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(noise[..., :3]).save(buffer, "JPEG", exif=exif)
    (folder / "a.JPG").write_bytes(buffer.getvalue())
    Image.fromarray(noise).save(folder / "b.png")
    (folder / "c.jpg").write_bytes(b"no picture")
    (folder / "d.txt").write_text("no picture")
    return folder


def test_every_picture_is_drawn(workdir, pictures, tmp_path, caplog):
    assert draw_folder(workdir, pictures, tmp_path / "out") == 2
    sizes = {}
    for path in sorted((tmp_path / "out").glob("*.png")):
        with Image.open(path) as drawn:
            sizes[path.name] = drawn.size
    assert sizes == {"a.JPG.png": (300, 480), "b.png.png": (480, 300)}
    results = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {each["file_name"] for each in results} == {"a.JPG", "b.png"}
    limits = {"a.JPG": (50, 80), "b.png": (80, 50)}
    for each in results:
        x, y, width, height = each["bbox"]
        assert 0 <= x < x + width <= limits[each["file_name"]][0]
        assert 0 <= y < y + height <= limits[each["file_name"]][1]
        assert each["segmentation"]["size"] == list(limits[each["file_name"]][::-1])
    assert "c.jpg is left out" in caplog.text


def test_a_layer_file_that_changed_is_refused(pictures, tmp_path):
    """A search may rewrite the file from which a detector took its layer."""
    path = tmp_path / "top_layers.json"
    path.write_text(layer_file([{"graph": CATALOG["evonorm_s0"].to_json()}]))
    layer = {"spec": f"{path}#0", "equation": str(CATALOG["evonorm_b0"])}
    written = {"categories": {"1": "1 dog"}, "eval_every": 1, "layer": layer}
    with claim_workdir(tmp_path / "run", written):
        pass
    with pytest.raises(ValueError, match=r"another config: layer\.equation is"):
        draw_folder(tmp_path / "run", pictures, tmp_path / "out")


def test_folders_that_cannot_be_used_are_one_line(workdir, pictures, tmp_path):
    for arguments, message in (
        ((tmp_path / "none", pictures, tmp_path / "out"), "is no work directory: it has no config.json"),
        ((workdir, tmp_path / "none", tmp_path / "out"), "there is no folder"),
        ((workdir, workdir, tmp_path / "out"), r"has no picture: names must end in \.jpg"),
        ((workdir, pictures, pictures), "the drawn pictures need another folder than"),
    ):
        with pytest.raises(ValueError, match=message):
            draw_folder(*arguments)
    with claim_workdir(tmp_path / "classifier", {"task": "classification"}):
        pass
    with pytest.raises(ValueError, match="is no work directory of a detector"):
        draw_folder(tmp_path / "classifier", pictures, tmp_path / "out")
    shutil.copytree(workdir, tmp_path / "copy", ignore=shutil.ignore_patterns(loop.CHECKPOINTS))
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        draw_folder(tmp_path / "copy", pictures, tmp_path / "out")


def test_other_categories_than_those_of_the_checkpoint_are_refused(workdir, tmp_path):
    """So that no class gets the name of another one."""
    copy = shutil.copytree(workdir, tmp_path / "copy")
    content = json.loads((copy / "config.json").read_text())
    assert content["config"]["categories"]["13"] == "10 nine"
    content["config"]["categories"]["13"] = "10 kite"
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"categories\.13 is '10 kite' there and '10 nine' now"):
        evaluation.evaluate(copy, "validation", build=lambda config: build_task(config, jax.devices()[:1]))
