"""From a search on the embedded digits to a re-ranking, a table and an evaluation, by their mains."""

import json
import re
import time

import pytest
from support import mains

from evonorms_jax.layers import load_layer
from evonorms_jax.study import rerank
from experiments.configs import rerank_mnist5k

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]
# Real digits, few and small, and a network to match, because the tests are about how the parts fit together.
SMALL = (
    "steps=8",
    "optimizer.warmup_steps=2",
    "data.image_size=8",
    "data.crop=8",
    "data.train_size=64",
    "data.validation_size=100",
)
NETWORK = "tiny experiments/configs/train.py:quick model.name=resnet_tiny batch_size=8"


def run(main, *arguments):
    done = mains.run(main, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def networks_and_recipe():
    return [f"--config.networks={(NETWORK,)}", f"--config.overrides={SMALL}"]


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A search that starts from two known layers, so that it has something to hand on."""
    workdir = tmp_path_factory.mktemp("search") / "run"
    run(
        "search",
        "--config=experiments/configs/search_mnist5k.py:quick",
        f"--workdir={workdir}",
        *("--config.data.source=mnist5k", "--config.data.train_size=64", "--config.budget=8"),
        *("--config.evolution.seed_layers=bn_relu", "--config.evolution.seed_layers=evonorm_b0"),
        "--config.rejection.quality_threshold=0.0",
    )
    return workdir


def reranking(search, workdir):
    return [
        *("--config=experiments/configs/rerank_mnist5k.py:quick", f"--search={search}"),
        *(f"--workdir={workdir}", *networks_and_recipe()),
    ]


@pytest.fixture(scope="module")
def reranked(search, tmp_path_factory):
    """Killed once its first training is done, and started again."""
    workdir = tmp_path_factory.mktemp("reranked") / "run"
    arguments = reranking(search, workdir)
    killed = mains.start("rerank", *arguments)
    while not (before := list(workdir.glob("cells/*/result.json"))) and killed.poll() is None:
        time.sleep(0.05)
    killed.kill()
    mains.finish(killed)
    written = {path: path.stat().st_mtime_ns for path in before}
    output = run("rerank", *arguments)
    assert len(written) >= 1 and all(path.stat().st_mtime_ns == then for path, then in written.items())
    return workdir, output


def test_a_search_is_reranked_though_it_was_killed(reranked):
    workdir, output = reranked
    results = json.loads((workdir / "rerank.json").read_text())
    means = [row["mean"] for row in results["layers"]]
    assert len(means) == 2 and means == sorted(means, reverse=True) and all(0 < mean <= 1 for mean in means)
    assert str(load_layer(f"{workdir}/reranked_layers.json#0")) == results["layers"][0]["equation"]
    assert f"the best 1: {workdir}/reranked_layers.json" in output


def test_finished_trainings_are_not_in_the_list_of_commands(reranked, search, capsys):
    config = rerank_mnist5k.get_config("quick")
    config.networks, config.overrides = (NETWORK,), SMALL
    rerank.run(config, search, reranked[0], commands=True)
    assert capsys.readouterr().out == ""


def test_the_best_layer_is_a_row_of_a_table_and_its_checkpoint_can_be_read(reranked, tmp_path):
    layer = f"{reranked[0]}/reranked_layers.json#0"
    arguments = [
        *("--config=experiments/configs/transfer_mnist5k.py:quick", f"--workdir={tmp_path / 'table'}"),
        *("--config.layers=bn_relu", f"--config.layers={layer}", "--config.seeds=3", *networks_and_recipe()),
    ]
    listed = run("tables", *arguments, "--commands").splitlines()
    assert len(listed) == 2 and all("--config.seed=3" in line for line in listed)
    shown = run("tables", *arguments)
    assert "BN-ReLU" in shown and f"written to {tmp_path / 'table' / 'table'}.json" in shown
    rows = json.loads((tmp_path / "table" / "table.json").read_text())["rows"]
    assert list(rows) == ["BN-ReLU", layer]

    (folder,) = (tmp_path / "table" / "cells").glob("bn-relu-*")
    accuracy = rows["BN-ReLU"]["tiny"]["by_seed"]["3"]
    printed = run("evaluate", f"--workdir={folder}")
    assert float(re.search(r"test .*accuracy ([\d.]+).* at step 8", printed)[1]) == pytest.approx(
        accuracy, abs=1e-4
    )
