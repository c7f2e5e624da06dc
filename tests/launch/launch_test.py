"""The launch scripts: they parse, say what is wrong, and install nothing twice."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_script_parses(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the scripts, with a Python that only writes down how it was called."""
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    shutil.copy(ROOT / "setup.py", tmp_path)
    fake = tmp_path / "python"
    fake.write_text(f'#!/usr/bin/env bash\necho "python $*" >> {tmp_path}/calls\n')
    fake.chmod(0o755)
    for name in ("python", "ruff"):
        place = tmp_path / ".venv" / "bin" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(fake, place)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f"PATH={tmp_path}/.venv/bin:$PATH\n")
    return tmp_path


def run(checkout, script, *arguments, python="python"):
    return subprocess.run(
        [checkout / "launch" / script, *arguments],
        env=os.environ | {"PYTHON": str(checkout / python)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_search_is_installed_once_and_takes_overrides(checkout):
    for _ in range(2):
        assert run(checkout, "search_local.sh", "--config.budget=5").returncode == 0
    calls = (checkout / "calls").read_text().splitlines()
    assert sum("pip install" in call for call in calls) == 1
    last = calls[-1]
    assert "-m experiments.search --config=experiments/configs/search_mnist5k.py" in last
    assert last.endswith("--workdir=runs/mnist5k --config.budget=5")


def test_the_tests_are_linted_and_run(checkout):
    assert run(checkout, "test.sh", "-k", "graph").returncode == 0
    lint, test = (checkout / "calls").read_text().splitlines()[-2:]
    assert lint == "python check ."
    assert test.startswith("python -m pytest --numprocesses=2") and test.endswith(" -k graph")


def test_an_old_python_is_named(checkout):
    old = checkout / "old"
    old.write_text('#!/usr/bin/env bash\n[ "$1" = --version ] && echo "Python 3.8.1"\nexit 1\n')
    old.chmod(0o755)
    done = run(checkout, "search_local.sh", python="old")
    assert done.returncode == 1
    assert "error: Python 3.11 or newer is needed, Python 3.8.1 was found" in done.stderr
