"""Re-ranking: which layers it takes, and how it ranks them."""

import json

import pytest
from support.report_workdirs import ANCHORS, CONFIG, write_workdir
from support.studies import finish

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.layers import load_layer
from evonorms_jax.runs.lock import WorkdirInUseError
from evonorms_jax.search_space import CATALOG
from evonorms_jax.study import rerank
from evonorms_jax.study.full_training import TRAINERS, FullTraining, columns
from experiments.configs import rerank_imagenet, rerank_mnist5k

#: Mean proxy accuracy and the deviation from it on the first two anchors: 1, 3 and 4 are the Pareto front.
SCORES = {1: (0.7, 0.0), 2: (0.6, 0.0), 3: (0.5, 0.3), 4: (0.69, -0.1), 5: (0.2, 0.0)}


def made_up_search(path):
    history = History()
    names = list(CATALOG)
    for index in range(6):
        evaluation = Evaluation("low_quality", {}, {})
        if index in SCORES:
            mean, shift = SCORES[index]
            scores = dict(zip(ANCHORS, (mean + shift, mean - shift, mean), strict=True))
            evaluation = Evaluation("accepted", {}, scores, fingerprint=str(index))
        history.append(Record(index, Proposal(CATALOG[names[index]], "random"), evaluation))
    return write_workdir(path, history, CONFIG | {"top_k": 1})


@pytest.fixture
def search(tmp_path):
    return made_up_search(tmp_path / "search")


def configured(**changes):
    config = rerank_mnist5k.get_config("quick")
    config.update(changes)
    return config


def indices(config, search, workdir):
    return [record.index for record in rerank.prepare(config, str(search), str(workdir))[1]]


def test_the_best_by_mean_or_the_front(search, tmp_path):
    assert indices(configured(top=3, best=2), search, tmp_path / "a") == [1, 4, 2]
    assert indices(configured(top=9, best=2), search, tmp_path / "b") == [1, 4, 2, 3, 5]
    assert indices(configured(top=1, best=1, choose="front"), search, tmp_path / "c") == [1, 4, 3]


def test_layers_are_ranked_by_their_trainings(search, tmp_path):
    """By the numbers of the layers and the networks; the third is lost."""
    config, workdir = configured(top=3, best=2), tmp_path / "run"
    path, layers = rerank.prepare(config, str(search), str(workdir))
    made = rerank.make_cells(config, path, layers)
    runner = FullTraining(path / "cells", TRAINERS["classification"])
    assert len(made) == 6
    for cell in made:
        number = int(cell.training.overrides["layer.spec"].rpartition("#")[2])
        score = 0.5 + 0.1 * number + (0.02 if cell.column == "resnet_small" else 0.0)
        finish(runner, cell, None if number == 2 else {"validation": {"accuracy": score}})
    rerank.run(config, str(search), str(workdir))
    results = json.loads((workdir / "rerank.json").read_text())
    assert [row["index"] for row in results["layers"]] == [4, 1, 2]
    assert [row["mean"] for row in results["layers"]] == pytest.approx([0.61, 0.51, 0.0])
    assert results["layers"][0]["proxy_rank"] == 2
    assert load_layer(f"{workdir / rerank.LAYERS}#0") == layers[1].graph
    with pytest.raises(ValueError, match="layers #0 to #1"):
        load_layer(f"{workdir / rerank.LAYERS}#2")
    line = (workdir / "rerank.md").read_text().splitlines()[2]
    assert line.startswith(f"| `{layers[1].graph}` | 62.0 | 60.0 | 61.0 | 69.0 | 2 |")


def test_no_ranking_before_other_processes_have_finished_their_cells(search, tmp_path, monkeypatch):
    def in_use(config, workdir):
        raise WorkdirInUseError(f"{workdir} is in use by process 7")

    monkeypatch.setattr(rerank, "_TRAINER", TRAINERS["classification"]._replace(train=in_use))
    with pytest.raises(ValueError, match="4 trainings run in other processes"):
        rerank.run(configured(), str(search), tmp_path / "run")
    assert not (tmp_path / "run" / "rerank.json").exists()


def test_a_search_that_has_continued_does_not_change_a_ranking_that_was_begun(search, tmp_path):
    indices(configured(), search, tmp_path / "run")
    history = History()
    evaluation = Evaluation("accepted", {}, dict.fromkeys(ANCHORS, 0.5))
    history.append(Record(0, Proposal(CATALOG["evonorm_s1"], "random"), evaluation))
    other = write_workdir(tmp_path / "other", history)
    with pytest.raises(ValueError, match=r"belongs to another config: .*layers is"):
        indices(configured(), other, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"choose": "best"}, "choose must be mean or front, got 'best'"),
        ({"best": 3}, "top must be at least best"),
    ],
)
def test_wrong_settings(changes, message, search, tmp_path):
    with pytest.raises(ValueError, match=message):
        indices(configured(**changes), search, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_images_to_score_on(search, tmp_path):
    config = configured()
    config.overrides += ("data.validation_size=0",)
    workdir, layers = rerank.prepare(config, str(search), str(tmp_path / "run"))
    with pytest.raises(ValueError, match=r"resnet_small: data\.validation_size=0 leaves no images"):
        rerank.make_cells(config, workdir, layers)


def test_a_search_without_an_accepted_layer(tmp_path):
    search = write_workdir(tmp_path / "search", History())
    with pytest.raises(ValueError, match="has accepted no layer yet"):
        indices(configured(), search, tmp_path / "run")


@pytest.mark.parametrize("module", [rerank_mnist5k, rerank_imagenet])
@pytest.mark.parametrize("form", ["full", "quick"])
def test_the_configs_are_ready_to_run(module, form):
    for recipe in columns(module.get_config(form)).values():
        assert recipe.override({"seed": 1}).config().seed == 1
