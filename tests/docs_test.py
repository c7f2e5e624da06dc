"""The documentation: its examples run, its commands parse, and the files that it names exist."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from evonorms_jax.runs.config_checks import flat
from experiments.config_flag import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(example, id=f"{page.name}-{number}")
    for page in PAGES
    for number, example in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]
# A command is indented or within backticks. A line that ends in a backslash continues.
_COMMAND = re.compile(
    r"(?:^ {4}|`)((?:WORKDIR=\S+ )?(?:python -m experiments|launch/)(?:\\\n|[^`\n])*)", re.M
)
CLOUD = {
    "EVONORMS_TPU_PROJECT": "my-project",
    "EVONORMS_TPU_ZONE": "us-east5-b",
    "EVONORMS_TPU_TYPE": "v6e-8",
    "EVONORMS_TPU_BUCKET": "my-bucket",
    "EVONORMS_TPU_NAME": "mnist5k",
}


def commands(start: str) -> list:
    """Parameters of a test: the commands of all pages that begin with `start`, as lists of words."""
    found = {}
    for page in PAGES:
        for match in _COMMAND.findall(page.read_text()):
            words = shlex.split(match.replace("\\\n", " "), comments=True)
            words = words[1:] if words[0].startswith("WORKDIR=") else words
            text = " ".join(words)
            if text.startswith(start):
                found[text] = pytest.param(words, id=text[:70])
    return list(found.values())


def test_the_examples_are_found():
    assert {"README.md", "choosing_a_layer.md"} <= {example.id.rpartition("-")[0] for example in EXAMPLES}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example):
    exec(compile(example, "example", "exec"), {"__name__": "example"})


def check_overrides(config: str, overrides: dict[str, str]) -> None:
    keys = flat(load_config(str(ROOT / config.replace("NAME", "mnist"))))
    assert overrides.keys() <= keys.keys()


@pytest.mark.parametrize("words", commands("python -m experiments"))
def test_a_command_names_a_main_its_flags_and_the_keys_of_its_config(words):
    main = ROOT / f"{words[2].replace('.', '/')}.py"
    arguments = [word for word in words[3:] if word != "..."]
    if "positional=True" in main.read_text():
        arguments = [argument for argument in arguments if argument.startswith("--")]
    values = dict(re.fullmatch(r"--([\w.]+)=?(.*)", argument).groups() for argument in arguments)
    config = values.get("config")
    if config and config != "CONFIG":  # a placeholder
        keys = {name.removeprefix("config."): v for name, v in values.items() if name.startswith("config.")}
        check_overrides(config, keys)
    definitions = main.read_text() + "".join(
        (ROOT / "experiments" / file).read_text() for file in ("flags.py", "benchmarks/results.py")
    )
    for name in values:
        assert name.startswith("config.") or f'"{name}"' in definitions, name


@pytest.mark.parametrize("words", commands("launch/tpu_search.sh"))
def test_a_command_of_the_launcher_runs_dry(words):
    done = subprocess.run(
        ["bash", *words, "--dry_run"], cwd=ROOT, env=os.environ | CLOUD, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands("launch/search_local.sh"))
def test_a_local_search_has_the_keys_that_its_command_sets(words):
    overrides = dict(re.fullmatch(r"--config\.([\w.]+)=(.*)", word).groups() for word in words[1:])
    check_overrides("experiments/configs/search_mnist5k.py", overrides)


def test_the_files_and_modules_that_the_pages_name_exist():
    for page in PAGES:
        text = page.read_text()
        for path in re.findall(r"(?:evonorms_jax|experiments|launch|tests|docs)/[\w/]+\.(?:py|sh|md)", text):
            assert (ROOT / path).is_file(), path
        for module in re.findall(r"`(experiments(?:\.\w+)+)`", text):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
        for link in re.findall(r"\]\(((?!http)[^)#]+)", text):
            assert (page.parent / link).is_file(), link
