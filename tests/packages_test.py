"""Missing packages: one line with the command, and no line for a fault of another kind."""

import sys

import pytest

from evonorms_jax.packages import require


def test_the_message_names_the_missing_package_and_quotes_for_a_shell(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ModuleNotFoundError) as raised:
        require(("json", "grain"), "streaming", install="evonorms-jax[imagenet] other")
    assert str(raised.value) == "streaming needs grain: pip install 'evonorms-jax[imagenet]' other"
    assert raised.value.name == "grain"


def test_a_package_whose_own_requirement_is_missing_is_found_early(monkeypatch, tmp_path):
    (tmp_path / "needs_another.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="the figure needs no_such_package: pip install demo"):
        require(("needs_another",), "the figure", install="demo")


def test_packages_that_are_there_pass():
    require(("json",), "nothing", install="none")
