"""Re-ranking: which layers it takes, what it makes of their trainings, and the whole on made-up images."""

import json
import shlex

import jax
import pytest
from support.report_workdirs import ANCHORS, CONFIG, write_workdir

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.layers import load_layer
from evonorms_jax.search_space import CATALOG
from evonorms_jax.study import cells, rerank
from evonorms_jax.training import loop
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


@pytest.fixture
def trained(monkeypatch):
    """Trainings that are told their validation accuracy, by the number of the layer and the network."""
    done = []

    def train(config, workdir):
        number = int(config.layer.spec.rpartition("#")[2])
        done.append((number, config.model.name))
        if number == 2:
            (workdir).mkdir(parents=True)
            (workdir / loop.LOST).write_text("{}")
            raise FloatingPointError("the loss is nan at step 3: the training is lost")
        score = 0.5 + 0.1 * number + (0.02 if config.model.name == "resnet_small" else 0.0)
        workdir.mkdir(parents=True)
        (workdir / loop.RESULT).write_text(json.dumps({"validation": {"accuracy": score}}))

    monkeypatch.setattr(loop, "train", train)
    return done


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


def test_layers_are_ranked_by_what_was_trained(search, trained, tmp_path):
    config = configured(top=3, best=2)
    workdir, layers = rerank.prepare(config, str(search), str(tmp_path / "run"))
    made = rerank.make_cells(config, workdir, layers)
    assert len(made) == 6
    cells.run(made)
    results = rerank.rank(config, layers, made)
    assert [row["index"] for row in results["layers"]] == [4, 1, 2]
    assert [row["mean"] for row in results["layers"]] == pytest.approx([0.61, 0.51, 0.0])
    assert results["layers"][0]["proxy_rank"] == 2
    rerank.write(results, workdir)
    assert json.loads((workdir / "rerank.json").read_text()) == json.loads(json.dumps(results))
    assert load_layer(f"{workdir / rerank.LAYERS}#0") == layers[1].graph
    with pytest.raises(ValueError, match="layers #0 to #1"):
        load_layer(f"{workdir / rerank.LAYERS}#2")
    line = (workdir / "rerank.md").read_text().splitlines()[2]
    assert line.startswith(f"| `{layers[1].graph}` | 62.0 | 60.0 | 61.0 | 69.0 | 2 |")
    # Again: nothing is left, not even the training that was lost.
    before = list(trained)
    cells.run(made)
    assert trained == before and len(before) == 6


def test_what_somebody_else_has_trained_meanwhile_is_not_trained_again(
    search, trained, tmp_path, monkeypatch
):
    config = configured(top=2, best=1)
    workdir, layers = rerank.prepare(config, str(search), str(tmp_path / "run"))
    made = rerank.make_cells(config, workdir, layers)
    train = loop.train

    def train_with_help(config, workdir):
        train(config, workdir)
        made[-1].workdir.mkdir(parents=True, exist_ok=True)
        (made[-1].workdir / loop.LOST).write_text("{}")

    monkeypatch.setattr(loop, "train", train_with_help)
    cells.run(made)
    assert len(trained) == len(made) - 1 and not cells.left(made)


def test_the_commands_are_those_of_the_trainings(search, trained, tmp_path, capsys):
    config = configured(top=2, best=1)
    workdir, layers = rerank.prepare(config, str(search), str(tmp_path / "run"))
    made = rerank.make_cells(config, workdir, layers)
    cells.run(made[:1])
    cells.print_commands(made)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    words = shlex.split(lines[0])
    assert words[:3] == ["python", "-m", "experiments.train"]
    assert f"--config.layer.spec={workdir / rerank.CANDIDATES}#0" in words
    assert f"--workdir={made[1].workdir}" in words and "--config.data.source=synthetic" in words


def test_a_search_that_has_gone_on_does_not_change_what_was_begun(search, tmp_path):
    indices(configured(), search, tmp_path / "run")
    with pytest.raises(ValueError, match=r"belongs to another config: .*layers is"):
        indices(configured(), made_up_search_of_one(tmp_path / "other"), tmp_path / "run")


def made_up_search_of_one(path):
    history = History()
    evaluation = Evaluation("accepted", {}, dict.fromkeys(ANCHORS, 0.5))
    history.append(Record(0, Proposal(CATALOG["evonorm_s1"], "random"), evaluation))
    return write_workdir(path, history)


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


def test_a_search_that_found_nothing(tmp_path):
    search = write_workdir(tmp_path / "search", History())
    with pytest.raises(ValueError, match="has accepted no layer yet"):
        indices(configured(), search, tmp_path / "run")


def test_the_whole_of_it(search, tmp_path, monkeypatch):
    """Two real trainings of a few steps."""
    config = configured(top=2, best=1)
    config.networks = config.networks[:1]
    shorter = ("steps=4", "optimizer.warmup_steps=1", "model.name=resnet_tiny", "batch_size=8")
    config.overrides += shorter
    monkeypatch.setattr(jax, "devices", lambda: jax.local_devices()[:1])
    workdir, layers = rerank.prepare(config, str(search), str(tmp_path / "run"))
    made = rerank.make_cells(config, workdir, layers)
    cells.run(made)
    results = rerank.rank(config, layers, made)
    assert {row["index"] for row in results["layers"]} == {1, 4}
    assert all(0 < row["mean"] <= 1 for row in results["layers"])


@pytest.mark.parametrize("module", [rerank_mnist5k, rerank_imagenet])
@pytest.mark.parametrize("form", ["full", "quick"])
def test_the_configs_are_ready_to_run(module, form):
    config = module.get_config(form)
    for network in cells.networks(config):
        cell = cells.Cell("", "", 0, network.recipe, network.overrides | {"seed": 1}, None)
        assert cell.config().seed == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(("steps",), "must be KEY=VALUE, got 'steps'"), (("no_such_key=1",), "no_such_key")],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(ValueError, match=message):
        parsed = cells.parse_overrides(overrides)
        cells.Cell("", "", 0, "experiments/configs/train.py", parsed, None).config()


@pytest.mark.parametrize("text", ["resnet50", "resnet50 steps=3"])
def test_a_network_without_a_recipe(text):
    config = configured()
    config.networks = (text,)
    with pytest.raises(ValueError, match="a network must be NAME RECIPE"):
        cells.networks(config)
