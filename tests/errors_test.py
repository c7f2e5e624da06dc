"""An error that a user can mend has a type of its own, so that the mains know it from a bug."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_plain_value_error_is_raised_or_derived_from():
    found = []
    for path in (path for top in ("evonorms_jax", "experiments") for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            used = [node.exc] if isinstance(node, ast.Raise) else getattr(node, "bases", [])
            if path.stem != "errors" and any("'ValueError'" in ast.dump(each) for each in used if each):
                found.append(f"{path}:{node.lineno}")
    assert not found, f"raise or derive from UserError, which is a ValueError, in {', '.join(found)}"
