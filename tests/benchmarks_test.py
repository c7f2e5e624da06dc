"""The benchmarks run and report every row; times are never asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import layer_figures

ROOT = Path(__file__).parent.parent


def run(*flags):
    command = [sys.executable, "-m", "experiments.benchmarks.layers", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_every_layer_is_measured_beside_the_reference():
    figures = layer_figures.measure(layer_figures.NAMES, [2, 4, 4, 8], "bfloat16", rounds=1)
    assert [row["layer"] for row in figures["rows"]] == list(layer_figures.NAMES)
    assert figures["rows"][0]["time_ratio"] == 1
    assert all(row["milliseconds"] > 0 and row["temporary_bytes"] >= 0 for row in figures["rows"])
    assert (figures["shape"], figures["dtype"], figures["rounds"]) == ([2, 4, 4, 8], "bfloat16", 1)
    assert json.loads(json.dumps(figures)) == figures
    lines = layer_figures.table(figures).splitlines()
    assert figures["device"] in lines[0] and figures["jax"] in lines[0]
    rows = lines[4 : 4 + len(layer_figures.NAMES)]
    assert [line.split()[0] for line in rows] == list(layer_figures.NAMES)
    assert len({len(line) for line in lines[3 : 4 + len(layer_figures.NAMES)]}) == 1  # aligned


def test_the_command_prints_the_table_and_writes_the_figures(tmp_path):
    path = tmp_path / "new" / "figures.json"
    result = run("--shape=2,4,4,8", "--rounds=1", "--layers=evonorm_s2", f"--json={path}")
    assert result.returncode == 0, result.stderr
    figures = json.loads(path.read_text())
    assert [row["layer"] for row in figures["rows"]] == [layer_figures.REFERENCE, "evonorm_s2"]
    assert result.stdout == f"{layer_figures.table(figures)}\nwritten to {path}\n"


@pytest.mark.parametrize("flag, message", [
    ("--shape=2,0,4", "three or more sizes above 0, got 2,0,4"),
    ("--layers=evonorm_b0,evonorms0", "unknown layer 'evonorms0'; did you mean 'evonorm_s0'"),
])  # fmt: skip
def test_a_wrong_flag_is_one_clear_line(flag, message):
    result = run(flag)
    assert result.returncode == 1
    assert message in result.stderr.splitlines()[0]


def test_an_unwritable_file_is_one_clear_line_before_anything_is_measured(tmp_path):
    (tmp_path / "file").touch()
    result = run(f"--json={tmp_path}/file/figures.json")
    assert result.returncode == 1
    assert result.stderr.startswith("cannot write --json=") and result.stderr.count("\n") == 1
