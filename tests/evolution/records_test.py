"""Reading a work directory: a running search, a damaged file, and the command that tells of it."""

import json
import shutil
from pathlib import Path

import pytest
from support import mains
from support.report_workdirs import CONFIG, made_up_history, write_workdir

from evonorms_jax import report
from evonorms_jax.evolution import records


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return write_workdir(tmp_path_factory.mktemp("search") / "full", made_up_history(60))


@pytest.fixture
def workdir(full, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(full, tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints")))


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_torn_last_line_is_left_out(workdir, kept):
    path = workdir / "history.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    without = records.read_search(workdir)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][: int(kept * len(lines[-1]))])
    torn = records.read_search(workdir)
    assert len(torn.history) == 59 and not torn.finished
    assert (torn.torn, without.torn) == (True, False)
    assert list(torn.history) == list(without.history)


def test_the_method_random_ends_with_its_first_layer(tmp_path):
    history = made_up_history(1, outcomes=("accepted",))
    assert [record.evaluation.outcome for record in history] == ["inert"]
    config = {**CONFIG, "method": "random"}
    path = write_workdir(tmp_path / "run", history, config)
    assert not records.read_search(path).finished
    history = made_up_history(2, outcomes=("accepted",))
    path = write_workdir(tmp_path / "done", history, config)
    assert records.read_search(path).finished


def damage_line(number, change):
    def damage(workdir):
        path = workdir / "history.jsonl"
        lines = path.read_text().splitlines()
        lines[number - 1] = change(lines[number - 1])
        path.write_text("\n".join(lines) + "\n")

    return damage


def damage_file(name, content):
    def damage(workdir):
        (workdir / name).unlink(missing_ok=True)
        if content is not None:
            (workdir / name).write_bytes(content)

    return damage


def change_row(**changes):
    return lambda line: json.dumps({**json.loads(line), **changes})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no such work directory"),
        (damage_file("config.json", None), "is not the work directory of a search: it has no config.json"),
        (damage_file("config.json", b"{"), "config.json is damaged: it is not JSON"),
        (damage_file("config.json", b"[]"), "config.json is damaged: "),
        (
            damage_file("config.json", b'{"version": "1", "config": {"name": "x"}}'),
            "is not the config of a search: it has no method, budget, top_k, anchors",
        ),
        (damage_file("baselines.json", b"\xff"), "baselines.json is damaged: it is not JSON"),
        (damage_file("top_layers.json", b"{}"), "top_layers.json is damaged: .*'layers'"),
        (damage_file("devices.json", b"{}"), "devices.json is damaged: .*'idle_share'"),
        (damage_line(7, lambda line: line[:40]), "history.jsonl is damaged: line 7 is not JSON"),
        (damage_line(9, lambda line: "[1, 2]"), "history.jsonl, line 9 is damaged"),
        (damage_line(9, change_row(graph={"schema": 1, "nodes": [["add", [0]]]})), "line 9 .* takes 2 input"),
        (damage_line(60, change_row(outcome="lost")), "line 60 is damaged: unknown outcome 'lost'"),
        (damage_line(5, change_row(index=44)), "line 5 is damaged: .*got 44"),
        (damage_line(5, change_row(outcome="accepted", scores={})), "line 5 is damaged: scores of no anchor"),
    ],
)
def test_damage_is_one_clear_line(workdir, damage, message):
    damage(workdir)
    with pytest.raises(report.WorkdirError, match=message) as raised:
        report.write_report(workdir)
    assert "\n" not in str(raised.value)


def test_the_command(workdir):
    good = mains.run("report", f"--workdir={workdir}")
    *lineages, last = good.stdout.splitlines()
    assert (good.returncode, last) == (0, f"report: {workdir / 'report' / 'index.html'}")
    assert lineages[0].startswith("#0 "), "the best layers with their lineages"
    damage_line(7, lambda line: line[:40])(workdir)
    bad = mains.run("report", f"--workdir={workdir}")
    assert bad.returncode != 0
    assert bad.stderr == f"error: {workdir / 'history.jsonl'} is damaged: line 7 is not JSON\n"
