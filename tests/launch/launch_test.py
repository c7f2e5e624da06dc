"""The launch scripts of this machine: the environment that they make, and the commands that they run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A Python that writes down its arguments. `-m venv` makes a folder with a copy of it. An environment with the
# file `upgraded` has no folder for packages.
FAKE = """#!/usr/bin/env bash
echo "python $*" >> {log}
case "$*" in
  *sysconfig*) [ ! -e "$(dirname "$0")/../upgraded" ] ;;
  "-m venv --clear "*)
    rm -rf "${{@: -1}}" && mkdir -p "${{@: -1}}/bin"
    cp "$0" "${{@: -1}}/bin/python" && cp "$0" "${{@: -1}}/bin/ruff"
    echo "PATH='$PWD/.venv/bin':\\$PATH" > "${{@: -1}}/bin/activate" ;;
esac
"""


class Checkout:
    """A copy of the scripts, and a fake Python."""

    def __init__(self, tmp_path):
        self.place, self.log, self.python = tmp_path / "checkout", tmp_path / "log", tmp_path / "python"
        shutil.copytree(ROOT / "launch", self.place / "launch")
        shutil.copy(ROOT / "setup.py", self.place)
        self.python.write_text(FAKE.format(log=self.log))
        self.python.chmod(0o755)

    def run(self, script, *arguments, status=0):
        """The calls of Python, without its looks at itself, and the standard error stream."""
        self.log.write_text("")
        done = subprocess.run(
            [self.place / "launch" / script, *arguments],
            env=os.environ | {"PYTHON": str(self.python)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stderr
        calls = [line for line in self.log.read_text().splitlines() if not line.startswith("python -c")]
        return calls, done.stderr


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


VENV = "python -m venv --clear .venv"
INSTALL = "python -m pip install --quiet --disable-pip-version-check --editable .[{}]"
SEARCH = "python -m experiments.search --config=experiments/configs/search_mnist5k.py --workdir=runs/mnist5k"


def test_the_search_is_installed_once_and_takes_overrides(checkout):
    calls, errors = checkout.run("search_local.sh", "--config.budget=5")
    assert calls == [VENV, INSTALL.format("demo"), SEARCH + " --config.budget=5"]
    assert errors == "installing evonorms-jax[demo] into .venv\n"
    assert checkout.run("search_local.sh") == ([SEARCH], "")
    (checkout.place / "setup.py").write_text("# another\n")
    assert checkout.run("search_local.sh")[0] == [INSTALL.format("demo"), SEARCH]


def move(checkout):
    checkout.place = checkout.place.rename(checkout.place.with_name("a new place"))


def copy(checkout):
    """The old environment still works, for the old checkout."""
    shutil.copytree(checkout.place, checkout.place.with_name("copy"))
    checkout.place = checkout.place.with_name("copy")


def remove_python(checkout):
    python = checkout.place / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(checkout.place / "no longer there")


def upgrade_python(checkout):
    (checkout.place / ".venv" / "upgraded").touch()


@pytest.mark.parametrize("change", [move, copy, remove_python, upgrade_python])
def test_an_environment_that_cannot_work_is_made_again(checkout, change):
    checkout.run("search_local.sh")
    change(checkout)
    calls, errors = checkout.run("search_local.sh")
    assert calls == [VENV, INSTALL.format("demo"), SEARCH]
    assert errors.startswith("the checkout was moved or its Python has changed: making .venv again\n")
    assert checkout.run("search_local.sh") == ([SEARCH], "")


def test_an_environment_behind_a_link_is_left_alone(checkout):
    checkout.run("search_local.sh")
    shared = checkout.place / "other"
    shutil.copytree(checkout.place / "launch", shared / "launch")
    shutil.copy(checkout.place / "setup.py", shared)
    (shared / ".venv").symlink_to(checkout.place / ".venv")
    checkout.place = shared
    assert checkout.run("search_local.sh") == ([SEARCH], "")


@pytest.mark.parametrize(("flags", "marker"), [([], "not exhaustive"), (["--exhaustive"], "")])
def test_the_tests_are_linted_and_run(checkout, flags, marker):
    calls, _ = checkout.run("test.sh", *flags, "-k", "graph")
    lint, test = calls[-2:]
    assert lint == "python check ."
    assert test.startswith("python -m pytest --numprocesses=2") and test.endswith(f" -m {marker} -k graph")


def test_an_old_python_is_named(checkout):
    checkout.python.write_text('#!/usr/bin/env bash\n[ "$1" = --version ] && echo "Python 3.8.1"\nexit 1\n')
    _, errors = checkout.run("search_local.sh", status=1)
    assert "error: Python 3.11 or newer is needed, Python 3.8.1 was found" in errors
