"""The tables of classification results: their cells, their numbers, and the files that show them."""

import json

import numpy as np
import pytest
from etils import epath
from support.report_workdirs import ANCHORS, CONFIG, write_workdir

from evonorms_jax.evolution.history import Evaluation, History, Proposal, Record
from evonorms_jax.search_space import CATALOG
from evonorms_jax.study import cells, figures, table
from evonorms_jax.study.methods import SEARCHES, search_dir
from evonorms_jax.training import loop
from experiments.configs import batch_size_imagenet, batch_size_mnist5k, transfer_imagenet, transfer_mnist5k


def made(config, workdir):
    layers = table.make_layers(config)
    return table.make_cells(config, epath.Path(workdir), layers)


def finish(cell, accuracy):
    cell.workdir.mkdir(parents=True)
    if accuracy is None:
        (cell.workdir / loop.LOST).write_text("{}")
    else:
        (cell.workdir / loop.RESULT).write_text(json.dumps({"test": {"accuracy": accuracy}}))


def test_a_table_by_hand(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    trainings = made(config, tmp_path)
    assert len(trainings) == len({cell.workdir for cell in trainings}) == 2 * 2 * 2
    scores = {("BN-ReLU", "resnet_small"): (0.5, 0.7), ("EvoNorm-B0", "resnet_small"): (0.9, None)}
    for cell in trainings:
        if (cell.row, cell.column) in scores:
            finish(cell, scores[cell.row, cell.column][cell.seed])
    results = table.collect(config, trainings)
    header, rows = table.table(results)
    assert header == ["layer", "resnet_small", "mobilenet_small"]
    assert rows == [
        ["BN-ReLU", f"60.0 ± {100 * np.std([0.5, 0.7], ddof=1):.1f}", "\N{EN DASH}"],
        ["EvoNorm-B0", f"45.0 ± {100 * np.std([0.9, 0], ddof=1):.1f}", "\N{EN DASH}"],
    ]


def test_a_seed_that_is_missing_is_told(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    trainings = made(config, tmp_path)
    finish(trainings[0], 0.5)
    assert table.table(table.collect(config, trainings))[1][0][1] == "50.0 (1 to come)"


@pytest.mark.parametrize(("workers", "batch"), [(None, {16}), (2, {16, 8})])
def test_batches_are_groups_or_shares_of_devices(workers, batch, tmp_path):
    config = batch_size_mnist5k.get_config("quick")
    config.workers = workers
    trainings = made(config, tmp_path)
    assert len(trainings) == 2 * 2 * 2 * 2
    of_batches = [cell for cell in trainings if workers or cell.row == "BN-ReLU"]
    found = {(cell.column, cell.config().statistics_batch) for cell in of_batches}
    assert found == {(f"{name}_small, {size}", size) for name in ("resnet", "mobilenet") for size in (8, 4)}
    assert {cell.config().batch_size for cell in trainings} == batch


def test_without_batch_statistics_one_training_does_for_all_groups(tmp_path, capsys):
    trainings = made(batch_size_mnist5k.get_config("quick"), tmp_path)
    per_image = [cell for cell in trainings if cell.row == "EvoNorm-S0"]
    assert len(per_image) == 8 and len({cell.workdir for cell in per_image}) == 4
    assert {cell.config().statistics_batch for cell in per_image} == {8}
    cells.print_commands(trainings)
    assert len(capsys.readouterr().out.splitlines()) == len(cells.left(trainings)) == 8 + 4


def comparison(path, seeds, budget=4):
    """Searches of 4 candidates, of which the third and the last, the best, are accepted."""
    names = list(CATALOG)
    for seed in seeds:
        for method in SEARCHES:
            history = History()
            for index in range(4):
                scores = dict.fromkeys(ANCHORS, 0.1 * index) if index in (2, 3) else {}
                outcome = "accepted" if scores else "low_quality"
                graph = CATALOG[names[(index + seed) % len(names)]]
                evaluation = Evaluation(outcome, {}, scores, fingerprint=str(index))
                history.append(Record(index, Proposal(graph, "random"), evaluation))
            folder = search_dir(epath.Path(path), method, seed)
            folder.parent.mkdir(parents=True, exist_ok=True)
            write_workdir(folder, history, CONFIG | {"budget": budget})
    return str(path)


def test_methods_are_rows_with_a_layer_for_each_seed(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    config.comparison = comparison(tmp_path / "compare", seeds=(0, 1))
    rows = table.make_layers(config)
    names = list(CATALOG)
    assert rows["Random"] == [CATALOG[names[0]], CATALOG[names[1]]]
    assert rows["Random + rejection"] == [CATALOG[names[2]], CATALOG[names[3]]]
    assert rows["Evolution"] == [CATALOG[names[3]], CATALOG[names[4]]]
    (tmp_path / "run").mkdir()
    trainings = made(config, tmp_path / "run")
    (cell,) = (
        cell for cell in trainings if (cell.row, cell.column, cell.seed) == ("Evolution", "resnet_small", 1)
    )
    assert str(loop.describe(cell.config())["layer"]["equation"]) == str(CATALOG[names[4]])


def test_a_comparison_with_too_few_seeds(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    config.comparison = comparison(tmp_path / "compare", seeds=(0,))
    with pytest.raises(ValueError, match="random_search-1"):
        table.make_layers(config)


def test_a_comparison_that_is_not_finished(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    config.comparison = comparison(tmp_path / "compare", seeds=(0, 1), budget=5)
    with pytest.raises(ValueError, match=r"random_search-0 is not finished; compare_methods goes on"):
        table.make_layers(config)


def results_file(path, text):
    path.write_text(text)
    config = transfer_mnist5k.get_config("quick")
    config.comparison = str(path)
    return config


def results_text(graphs, title="Evolution"):
    runs = [{"chosen": graph and {"graph": graph.to_json()}} for graph in graphs]
    return json.dumps({"methods": [{"title": title, "runs": runs}]})


def test_what_a_comparison_wrote_does_for_its_searches(tmp_path):
    graphs = list(CATALOG.values())[:3]
    config = results_file(tmp_path / "comparison.json", results_text(graphs))
    assert table.make_layers(config)["Evolution"] == graphs[: len(config.seeds)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged, or was not written by compare_methods"),
        ('{"layers": []}', "damaged, or was not written by compare_methods"),
        (results_text([CATALOG["evonorm_b0"]]), "has 1 layers that Evolution accepted, for 2 seeds"),
        (results_text([CATALOG["evonorm_b0"], None]), "has 1 layers that Evolution accepted, for 2 seeds"),
    ],
)
def test_results_that_do_not_do(text, message, tmp_path):
    config = results_file(tmp_path / "comparison.json", text)
    with pytest.raises(ValueError, match=message):
        table.make_layers(config)


def test_results_that_are_not_there(tmp_path):
    config = transfer_mnist5k.get_config("quick")
    config.comparison = str(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"cannot read the comparison .*none\.json"):
        table.make_layers(config)


def test_the_comparison_of_the_docs_has_a_layer_for_every_seed():
    rows = table.make_layers(transfer_mnist5k.get_config())
    methods = ("Random", "Random + rejection", "Random search + rejection", "Evolution")
    assert [len(rows[title]) for title in methods] == [3] * 4


def test_what_trained_the_cells_stands_below_the_table(tmp_path):
    """Wherever the table is made."""
    config = transfer_mnist5k.get_config("quick")
    trainings = made(config, tmp_path)
    for number, cell in enumerate(trainings):
        finish(cell, 0.5)
        if number:
            kind = "TPU v5e" if number % 2 else "cpu"
            hardware = {"device": kind, "devices": 8, "machine": "x86_64", "jax": "0.10.2"}
            result = {"test": {"accuracy": 0.5}, "hardware": hardware}
            (cell.workdir / loop.RESULT).write_text(json.dumps(result))
    results = table.collect(config, trainings)
    assert [one["device"] for one in results["hardware"]] == ["TPU v5e", "cpu"]
    assert "8 device(s) of kind TPU v5e, x86_64, JAX 0.10.2; 8 device(s) of kind cpu" in table.notes(results)


@pytest.mark.parametrize("module", [transfer_mnist5k, batch_size_mnist5k])
def test_the_files_that_show_it(module, tmp_path):
    config = module.get_config("quick")
    trainings = made(config, tmp_path)
    for number, cell in enumerate(cells.left(trainings)[:-1]):
        finish(cell, number / len(trainings))
    results = table.collect(config, trainings)
    paths = table.write(results, epath.Path(tmp_path), figures.render)
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(results))
    text = paths[1].read_text()
    assert text.startswith("| layer |") and "(1 to come)" in text and "2 seeds" in text
    assert b"<svg" in paths[2].read_bytes() and paths[3].read_bytes().startswith(b"\x89PNG")
    figure = figures.draw(results)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["resnet_small", "mobilenet_small"]


@pytest.mark.parametrize(
    ("module", "form"),
    [
        (transfer_mnist5k, "full"),
        (batch_size_mnist5k, "full"),
        (transfer_imagenet, "full"),
        (batch_size_imagenet, "full"),
        (transfer_imagenet, "quick"),
        (batch_size_imagenet, "quick"),
    ],
)
def test_the_configs_are_ready_to_run(module, form, tmp_path):
    config = module.get_config(form)
    config.comparison = ""
    for cell in made(config, tmp_path):
        settings = cell.config()
        assert settings.batch_size % (settings.statistics_batch or 1) == 0


def test_the_recipes_themselves_are_not_changed(tmp_path):
    """A column on ImageNet is its recipe with a layer and a seed, and nothing else."""
    config = transfer_imagenet.get_config()
    for cell in made(config, tmp_path):
        assert set(cell.overrides) == {"layer.spec", "seed"}


def test_a_training_can_be_run_where_its_command_is(tmp_path, capsys):
    trainings = made(transfer_mnist5k.get_config("quick"), tmp_path)
    for cell in trainings[1:]:
        finish(cell, 0.5)
    cells.print_commands(trainings)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == trainings[0].command()
