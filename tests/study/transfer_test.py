"""Tables of layers x networks: their cells, their numbers, and the kinds of training that they can show."""

import json

import pytest
from etils import epath
from support.studies import finish

from evonorms_jax.search_space import CATALOG
from evonorms_jax.study import cells, full_training, transfer
from evonorms_jax.study.figures import draw_table
from evonorms_jax.study.full_training import Trainer
from evonorms_jax.study.table import DASH, Metric, publish
from evonorms_jax.training import loop
from experiments.configs import (
    batch_size_imagenet,
    batch_size_mnist5k,
    optimizers_mnist5k,
    transfer_coco,
    transfer_digit_scenes,
    transfer_gan_digits,
    transfer_gan_imagenet,
    transfer_imagenet,
    transfer_mnist5k,
)


def made(config, workdir):
    """The runner and the cells of a table."""
    workdir = epath.Path(workdir)
    layers = transfer.make_layers(config)
    return transfer.make_runner(config, workdir), transfer.make_cells(config, workdir, layers)


def accuracy(value):
    return None if value is None else {"test": {"accuracy": value}}


def test_a_table_by_hand(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    runner, trainings = made(config, tmp_path)
    assert len(trainings) == len({cell.name for cell in trainings}) == 2 * 2 * 2
    scores = {("BN-ReLU", "resnet_small"): (0.5, 0.7), ("EvoNorm-B0", "resnet_small"): (0.9, None)}
    for cell in trainings:
        if (cell.row, cell.column) in scores:
            finish(runner, cell, accuracy(scores[cell.row, cell.column][cell.seed]))
    table = transfer.make_table(transfer.collect(config, runner, trainings))
    assert table.header == ["layer", "resnet_small", "mobilenet_small"]
    assert table.rows == [["BN-ReLU", "60.0 ± 14.1", DASH], ["EvoNorm-B0", "45.0 ± 63.6", DASH]]


@pytest.mark.parametrize(("workers", "batch"), [(None, {16}), (2, {16, 8})])
def test_batches_are_groups_or_shares_of_devices(workers, batch, tmp_path):
    config = batch_size_mnist5k.get_config("quick")
    config.workers = workers
    _, trainings = made(config, tmp_path)
    assert len(trainings) == 2 * 2 * 2 * 2
    of_batches = [cell for cell in trainings if workers or cell.row == "BN-ReLU"]
    found = {(cell.column, cell.training.config().statistics_batch) for cell in of_batches}
    assert found == {(f"{name}_small, {size}", size) for name in ("resnet", "mobilenet") for size in (8, 4)}
    assert {cell.training.config().batch_size for cell in trainings} == batch


def test_without_batch_statistics_one_training_serves_all_groups(tmp_path, capsys):
    runner, trainings = made(batch_size_mnist5k.get_config("quick"), tmp_path)
    per_image = [cell for cell in trainings if cell.row == "EvoNorm-S0"]
    assert len(per_image) == 8 and len({cell.name for cell in per_image}) == 4
    assert {cell.training.config().statistics_batch for cell in per_image} == {8}
    runner.print_commands(trainings)
    assert len(capsys.readouterr().out.splitlines()) == len(cells.left(runner, trainings)) == 8 + 4


def test_the_layers_of_methods_are_trained_with_one_seed_each(tmp_path):
    graphs = list(CATALOG.values())[:2]
    runs = [{"chosen": {"graph": graph.to_json()}} for graph in graphs]
    (tmp_path / "comparison.json").write_text(json.dumps({"methods": [{"title": "Evolution", "runs": runs}]}))
    config = transfer_mnist5k.get_config("quick")
    config.comparison = str(tmp_path / "comparison.json")
    assert transfer.make_layers(config)["Evolution"] == graphs
    _, trainings = made(config, tmp_path)
    found = {cell.seed: cell for cell in trainings if cell[:2] == ("Evolution", "resnet_small")}
    for seed, graph in enumerate(graphs):
        assert loop.describe(found[seed].training.config())["layer"]["equation"] == str(graph)


def test_the_notes_name_the_hardware_of_every_training(tmp_path):
    """Wherever the table is made."""
    config = transfer_mnist5k.get_config("quick")
    runner, trainings = made(config, tmp_path)
    for number, cell in enumerate(trainings):
        kind = {
            "device": "TPU v5e" if number % 2 else "cpu",
            "devices": 8,
            "machine": "x86_64",
            "jax": "0.10.2",
        }
        finish(runner, cell, accuracy(0.5) | ({"hardware": kind} if number else {}))
    results = transfer.collect(config, runner, trainings)
    assert [one["device"] for one in results["hardware"]] == ["TPU v5e", "cpu"]
    notes = transfer.make_table(results).notes
    assert "8 device(s) of kind TPU v5e, x86_64, JAX 0.10.2. 8 device(s) of kind cpu" in notes


@pytest.mark.parametrize("module", [transfer_mnist5k, batch_size_mnist5k])
def test_the_files_of_a_table_that_is_not_finished(module, tmp_path):
    config = module.get_config("quick")
    runner, trainings = made(config, tmp_path)
    for number, cell in enumerate(cells.left(runner, trainings)[:-1]):
        finish(runner, cell, accuracy(number / len(trainings)))
    results = transfer.collect(config, runner, trainings)
    publish(epath.Path(tmp_path), "table", results, transfer.make_table(results), draw_table(results))
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(results))
    text = (tmp_path / "table.md").read_text()
    assert text.startswith("| layer |") and "(1 to come)" in text and "2 seeds" in text
    assert b"<svg" in (tmp_path / "table.svg").read_bytes()
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    titles = [axes.get_title(loc="left") for axes in draw_table(results).axes]
    assert titles == ["resnet_small", "mobilenet_small"]


def test_many_panels_stand_in_even_rows_with_the_layers_at_the_left(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    recipe = "experiments/configs/train.py:quick model.name=resnet_tiny"
    config.networks = tuple(f"network_{number} {recipe}" for number in range(5))
    runner, trainings = made(config, tmp_path)
    panels = draw_table(transfer.collect(config, runner, trainings)).axes
    places = [axes.get_position() for axes in panels]
    assert [round(place.y0, 3) for place in places[:3]] == [round(places[0].y0, 3)] * 3
    assert places[3].y0 == places[4].y0 < places[0].y0 and places[3].x0 == places[0].x0
    named = [any(label.get_text() for label in axes.get_yticklabels()) for axes in panels]
    assert named == [True, False, False, True, False]


# -- Other kinds of training: a metric of their own is all that they add


DETECTION = Trainer(
    main="experiments.detect",
    train=lambda config, workdir: None,
    ranges="training",
    result="scores.json",
    metrics={
        "box": Metric("box AP", "box.AP"),
        "mask": Metric("mask AP", "mask.AP"),
        "nan_share": full_training.NAN_SHARE,
    },
)
FRECHET = Metric("Fréchet distance", "frechet.value", lost=None, statistic="median", percent=False)
SYNTHESIS = DETECTION._replace(main="experiments.gan", metrics={"frechet": FRECHET})


def other_task(name, trainer, metrics, monkeypatch):
    monkeypatch.setitem(full_training.TRAINERS, name, trainer)
    config = transfer_mnist5k.get_config("quick")
    config.task, config.metrics, config.seeds = name, metrics, (0, 1, 2)
    return config


def test_a_detection_table_shows_box_and_mask_ap_of_each_detector(tmp_path, monkeypatch):
    config = other_task("detection", DETECTION, ("box", "mask", "nan_share"), monkeypatch)
    config.networks = config.networks[:1]
    runner, trainings = made(config, tmp_path)
    assert runner.command(trainings[0]).startswith("python -m experiments.detect --config=")
    for cell in trainings:
        lost = cell.row == "EvoNorm-B0" and cell.seed == 2
        finish(runner, cell, None if lost else {"box": {"AP": 0.6}, "mask": {"AP": 0.4 + 0.1 * cell.seed}})
    results = transfer.collect(config, runner, trainings)
    table = transfer.make_table(results)
    assert table.header[1:] == [f"resnet_small, {name}" for name in ("box AP", "mask AP", "NaN loss")]
    assert table.rows == [
        ["BN-ReLU", "60.0 ± 0.0", "50.0 ± 10.0", "0"],
        ["EvoNorm-B0", "40.0 ± 34.6", "30.0 ± 26.5", "33"],
    ]
    panels = draw_table(results).axes
    assert [axes.get_xlabel() for axes in panels] == ["box AP", "mask AP", "NaN loss"]


def test_a_gan_table_shows_the_median_of_the_trainings_that_ended(tmp_path, monkeypatch):
    config = other_task("synthesis", SYNTHESIS, ("frechet",), monkeypatch)
    runner, trainings = made(config, tmp_path)
    for cell in trainings:
        lost = cell.row == "EvoNorm-B0" and cell.seed == 2
        finish(runner, cell, None if lost else {"frechet": {"value": (9.0, 3.0, 4.0)[cell.seed]}})
    results = transfer.collect(config, runner, trainings)
    table = transfer.make_table(results)
    cells = "4.0 [3.0, 4.0, 9.0]", "6.0 [3.0, 9.0] (1 lost)"
    assert table.rows == [["BN-ReLU", *cells[:1] * 2], ["EvoNorm-B0", *cells[1:] * 2]]
    assert (
        "Fréchet distance: median and all values over the seeds" in table.notes
        and "is left out" in table.notes
    )
    assert draw_table(results).axes[0].get_xlabel() == "Fréchet distance"


def test_an_optimizer_is_one_more_column(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    config.networks = tuple(
        f"resnet_small/{momentum} experiments/configs/train.py:quick optimizer.momentum={momentum}"
        for momentum in (0.5, 0.9)
    )
    _, trainings = made(config, tmp_path)
    assert {cell.column: cell.training.config().optimizer.momentum for cell in trainings} == {
        "resnet_small/0.5": 0.5,
        "resnet_small/0.9": 0.9,
    }
    assert len({cell.name for cell in trainings}) == len(trainings)


def test_the_table_of_optimizers_has_a_column_for_each(tmp_path):
    config = optimizers_mnist5k.get_config()
    _, trainings = made(config, tmp_path)
    names = {cell.column: cell.training.config().optimizer.name for cell in trainings}
    assert set(names) == {
        f"{network}/{name}" for network in optimizers_mnist5k.NETWORKS for name in ("sgd", "adamw", "muon")
    }
    assert all(column.endswith(f"/{name}") for column, name in names.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "clasification"}, r"task must be one of classification, .*gan, got 'clasification'"),
        ({"metrics": ("test.acuracy",)}, "unknown name 'test.acuracy'; did you mean 'test.accuracy'"),
        ({"networks": ("a f.py", "a g.py")}, "networks must have different names, got 'a' twice"),
        ({"networks": ()}, "networks must have at least one entry"),
        (
            {
                "networks": tuple(
                    f"{name} experiments/configs/train.py batch_size={len(name)}" for name in ("a/b", "a--b")
                )
            },
            "two trainings have the work directory bn-relu-a-b-0",
        ),
        ({"layers": ()}, "layers must have at least one entry"),
        ({"seeds": ()}, "seeds must have at least one entry"),
        ({"metrics": ()}, "metrics must have at least one entry of test.accuracy"),
    ],
)
def test_wrong_settings(change, message, tmp_path):
    config = transfer_mnist5k.get_config("quick")
    config.update(change)
    with pytest.raises(ValueError, match=message):
        made(config, tmp_path)


def test_a_wrong_task_or_metric_claims_no_work_directory(tmp_path):
    for change in ({"task": "detektion"}, {"metrics": ()}):
        config = transfer_mnist5k.get_config("quick")
        config.update(change)
        with pytest.raises(ValueError):
            transfer.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_work_directory_from_before_there_were_metrics_is_still_its_own(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    del config.task, config.metrics
    layers = transfer.make_layers(config)
    with transfer.claim_workdir(tmp_path / "run", transfer.describe(config, layers)):
        pass
    transfer.run(transfer_mnist5k.get_config("quick"), tmp_path / "run", commands=True)
    other = transfer_mnist5k.get_config("quick")
    other.seeds = (5,)
    with pytest.raises(ValueError, match="belongs to another config"):
        transfer.run(other, tmp_path / "run", commands=True)


# -- The configs


@pytest.mark.parametrize(
    ("module", "form"),
    [
        (transfer_mnist5k, "full"),
        (batch_size_mnist5k, "full"),
        (transfer_imagenet, "full"),
        (batch_size_imagenet, "full"),
        (transfer_imagenet, "quick"),
        (batch_size_imagenet, "quick"),
        (transfer_digit_scenes, "full"),
        (transfer_digit_scenes, "quick"),
        (transfer_coco, "full"),
        (transfer_coco, "quick"),
        (transfer_gan_digits, "full"),
        (transfer_gan_digits, "quick"),
        (transfer_gan_imagenet, "full"),
        (transfer_gan_imagenet, "quick"),
    ],
)
def test_the_configs_are_ready_to_run(module, form, tmp_path):
    config = module.get_config(form)
    config.comparison = ""
    for cell in made(config, tmp_path)[1]:
        settings = cell.training.config()
        assert settings.batch_size % (settings.statistics_batch or 1) == 0


def test_a_table_of_generators_names_the_network_of_its_scores(tmp_path):
    """FID is the Inception network's."""
    config = transfer_gan_digits.get_config("quick")
    runner, trainings = made(config, tmp_path)
    assert [cell.row for cell in trainings] == ["BN-ReLU", "EvoNorm-S0"]
    assert runner.command(trainings[1]).startswith("python -m experiments.generate --config=")
    scores = {"frechet": {"value": 12.0, "floor": 1.0}, "score": 8.75, "agreement": 0.925}
    finish(runner, trainings[0], scores)
    finish(runner, trainings[1], None)
    table = transfer.make_table(transfer.collect(config, runner, trainings))
    names = ("digit Frechet distance", "digit score", "agreement with the class")
    assert table.header[1:] == [f"digits, {name}" for name in names]
    assert table.rows == [["BN-ReLU", "12.00", "8.75", "92.5"], ["EvoNorm-S0", *[f"{DASH} (1 lost)"] * 3]]
    assert full_training.TRAINERS["gan"].metrics["fid"].title == "FID"


def test_the_recipes_themselves_are_not_changed(tmp_path):
    """A column on ImageNet is its recipe with a layer and a seed alone."""
    config = transfer_imagenet.get_config()
    for cell in made(config, tmp_path)[1]:
        assert set(cell.training.overrides) == {"layer.spec", "seed"}
