"""The direction of imports: a layer of the house knows only the layers below it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "evonorms_jax"

# A module may import its own part and parts of a lower level. Models, data and runs do not know each other.
LEVELS = {
    "evonorms_jax.errors": 0,
    "evonorms_jax.search_space": 1,
    "evonorms_jax.layers": 2,
    "evonorms_jax": 2.5,  # the public names and `nnx.py`, which are names of the layers
    "evonorms_jax.models": 3,
    "evonorms_jax.data": 3,
    "evonorms_jax.runs": 3,
    "evonorms_jax.training": 4,
    "evonorms_jax.evolution": 5,
    "evonorms_jax.gan": 5,
    "evonorms_jax.report": 6,
    "evonorms_jax.detection": 6.3,
    "evonorms_jax.lowering": 6.6,
    "evonorms_jax.tasks": 6.6,
    "evonorms_jax.study": 7,
    "experiments": 8,
}
# Libraries that only these parts may know.
OWNERS = {
    "optax": ("evonorms_jax.training", "evonorms_jax.detection", "evonorms_jax.gan"),
    "orbax": ("evonorms_jax.runs",),
    "tensorflow_datasets": (
        "evonorms_jax.data",
        "experiments.benchmarks",
    ),  # reads sets, writes sets
    "grain": ("evonorms_jax.data",),
    "array_record": ("evonorms_jax.data",),
    "mlxtend": ("evonorms_jax.data",),
    "pycocotools": ("evonorms_jax.detection",),
}
SEARCH_SPACE_LIBRARIES = {"jax", "numpy"}


def part_of(module: str) -> str | None:
    """The part of the house that a module belongs to, or None for a library."""
    first, *rest = module.split(".")
    if first == "experiments":
        return first
    if first != PACKAGE:
        return None
    return f"{PACKAGE}.{rest[0]}" if rest and f"{PACKAGE}.{rest[0]}" in LEVELS else PACKAGE


def imports_of(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Full names of all modules imported anywhere in the source, also inside functions."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *filter(None, [node.module])])
            # `from evonorms_jax import layers` names a part, not a public name of the root.
            yield from (f"{base}.{alias.name}" if base == PACKAGE else base for alias in node.names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """One line for every import of the source that the rules forbid."""
    own = part_of(module)
    found = []
    for imported in imports_of(source, module, is_package):
        part, library = part_of(imported), imported.split(".")[0]
        if part is not None:
            allowed = part == own or LEVELS[part] < LEVELS[own]
        elif own == "evonorms_jax.search_space" and library not in SEARCH_SPACE_LIBRARIES:
            allowed = library in sys.stdlib_module_names
        else:
            allowed = module.startswith(OWNERS.get(library, (own,)))
        if not allowed:
            found.append(f"{module} imports {imported}")
    return found


def modules() -> list[tuple[str, Path]]:
    paths = [path for top in (PACKAGE, "experiments") for path in sorted((ROOT / top).rglob("*.py"))]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts), path) for path in paths]


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: str(value).split("/")[-1])
def test_imports_only_go_down(module, path):
    is_package = module.endswith(".__init__")
    assert not violations(path.read_text(), module.removesuffix(".__init__"), is_package)


def test_every_directory_of_the_package_has_a_level():
    found = {f"{PACKAGE}.{path.parent.name}" for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert found <= set(LEVELS)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("evonorms_jax.layers.linen", "from evonorms_jax.models import resnet"),
        ("evonorms_jax.layers.linen", "def f():\n    import evonorms_jax.report.page"),
        ("evonorms_jax.layers.linen", "from ..training import loop"),
        ("evonorms_jax.layers.linen", "from evonorms_jax import EvoNormB0"),
        ("evonorms_jax.models.resnet", "from evonorms_jax.data import sources"),
        ("evonorms_jax.data.sources", "from evonorms_jax import models"),
        ("evonorms_jax.evolution.search", "if True:\n    from evonorms_jax import report"),
        ("evonorms_jax.report.page", "import experiments.search"),
        ("evonorms_jax.search_space.graph", "from flax import linen"),
        ("evonorms_jax.layers.linen", "import optax"),
        ("evonorms_jax.evolution.search", "import orbax.checkpoint as ocp"),
        ("experiments.train", "import tensorflow_datasets as tfds"),
    ],
)
def test_the_check_itself_finds(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("evonorms_jax.search_space.graph", "import json, numpy\nfrom jax import lax\nfrom . import text"),
        ("evonorms_jax.evolution.search", "from ..training import loop\nfrom evonorms_jax import data"),
        ("evonorms_jax.models.resnet", "from flax import linen\nfrom evonorms_jax import norm_act"),
        ("evonorms_jax.runs.checkpoint", "import orbax.checkpoint"),
        ("experiments.search", "from evonorms_jax.report import page\nfrom experiments.configs import c"),
    ],
)
def test_the_check_itself_allows(module, source):
    assert not violations(source, module)
