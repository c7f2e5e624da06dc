"""The README: its examples run, and what it names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.S)


def test_there_are_examples():
    assert len(EXAMPLES) == 2


@pytest.mark.parametrize("example", EXAMPLES, ids=["evonorm", "graph"])
def test_the_example_runs(example):
    exec(compile(example, "README.md", "exec"), {"__name__": "readme"})


def test_files_and_modules_named_are_there():
    for path in re.findall(r"`((?:search_space|layers|models|data|evolution)/\w+\.py)`", README):
        assert (ROOT / "evonorms_jax" / path).is_file(), path
    for path in re.findall(r"(?:experiments|launch)/[\w/]+\.(?:py|sh)", README):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"python -m ([\w.]+)", README):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
