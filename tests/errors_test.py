"""An error that a user can mend has a type of its own, so that the mains know it from a bug."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_plain_value_error_is_raised():
    found = []
    for path in (path for top in ("evonorms_jax", "experiments") for path in (ROOT / top).rglob("*.py")):
        raised = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Raise)]
        found += [f"{path}:{node.lineno}" for node in raised if "'ValueError'" in ast.dump(node)]
    assert not found, f"raise UserError, which is a ValueError, in {', '.join(found)}"
