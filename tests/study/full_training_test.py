"""Full trainings: which of them run, what a stop keeps, and their commands."""

import json
import os
import shlex
import signal

import pytest
from etils import epath
from support.studies import finish

from evonorms_jax.runs.lock import WorkdirInUseError
from evonorms_jax.study import cells
from evonorms_jax.study.cells import Cell
from evonorms_jax.study.full_training import TRAINERS, FullTraining, Recipe, columns, parse_overrides
from evonorms_jax.study.table import LOST
from evonorms_jax.training import loop
from experiments.configs import transfer_mnist5k

RECIPE = Recipe("experiments/configs/train.py:quick", {"steps": 4})
CELLS = [Cell("BN-ReLU", "net", seed, f"cell-{seed}", RECIPE.override({"seed": seed})) for seed in range(3)]


class Trainings(list):
    """Seeds that were trained; seed 1 is lost, and Ctrl-C comes while `stop_at` is trained."""

    stop_at = None
    helper = None

    def __call__(self, config, workdir):
        self.append(config.seed)
        workdir.mkdir(parents=True)
        if self.helper:
            self.helper()
        if config.seed == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        if config.seed == 1:
            (workdir / loop.LOST).write_text("{}")
            raise FloatingPointError("the loss is nan at step 3: the training is lost")
        (workdir / loop.RESULT).write_text(json.dumps({"test": {"accuracy": config.seed / 10}}))


@pytest.fixture
def trained():
    return Trainings()


@pytest.fixture
def runner(trained, tmp_path):
    return FullTraining(epath.Path(tmp_path), TRAINERS["classification"]._replace(train=trained))


def test_cells_are_trained_once_also_the_lost_one(runner, trained):
    cells.run(runner, CELLS)
    cells.run(runner, CELLS)
    assert trained == [0, 1, 2] and not cells.left(runner, CELLS)
    assert runner.result(CELLS[2]) == {"test": {"accuracy": 0.2}} and LOST in runner.result(CELLS[1])


def test_stopped_between_two_trainings_the_rest_follows(runner, trained):
    trained.stop_at = 0
    with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
        cells.run(runner, CELLS)
    assert trained == [0]
    cells.run(runner, CELLS)
    assert trained == [0, 1, 2]


def test_a_cell_that_another_process_has_trained_meanwhile_is_left_alone(runner, trained):
    trained.helper = lambda: runner.result(CELLS[2]) or finish(runner, CELLS[2], None)
    cells.run(runner, CELLS)
    assert trained == [0, 1] and not cells.left(runner, CELLS)


def test_a_cell_that_another_process_trains_is_left_to_it(runner, trained):
    def in_use(config, workdir):
        if config.seed == 0:
            raise WorkdirInUseError(f"{workdir} is in use by process 7")
        trained(config, workdir)

    runner.trainer = runner.trainer._replace(train=in_use)
    cells.run(runner, CELLS)
    assert trained == [1, 2] and cells.left(runner, CELLS) == CELLS[:1]


def test_a_wrong_setting_in_any_cell_is_found_before_the_first_training(runner, trained):
    for override, message in (
        ("no_such_key", "no_such_key"),
        ("batch_size", "batch_size must be at least 1"),
    ):
        wrong = [*CELLS[:2], CELLS[2]._replace(training=RECIPE.override({override: 0}))]
        with pytest.raises(ValueError, match=message):
            cells.run(runner, wrong)
        with pytest.raises(ValueError, match=message):
            runner.print_commands(wrong)
    assert not trained


def test_the_commands_are_those_of_the_trainings_without_a_result(runner, capsys):
    finish(runner, CELLS[0], None)
    runner.print_commands(CELLS)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [runner.command(cell) for cell in CELLS[1:]]
    words = shlex.split(lines[0])
    assert words[:3] == ["python", "-m", "experiments.train"]
    assert f"--workdir={runner.folder / 'cell-1'}" in words and "--config.seed=1" in words


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(("steps",), "must be KEY=VALUE, got 'steps'"), (("no_such_key=1",), "no_such_key")],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(ValueError, match=message):
        Recipe("experiments/configs/train.py", parse_overrides(overrides)).config()


@pytest.mark.parametrize("text", ["resnet50", "resnet50 steps=3"])
def test_a_network_without_a_recipe(text):
    config = transfer_mnist5k.get_config("quick")
    config.networks = (text,)
    with pytest.raises(ValueError, match="a network must be NAME RECIPE"):
        columns(config)
