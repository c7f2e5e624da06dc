"""The main that examines layers: wrong equations and the whole way from a command to JSON lines."""

import json

import pytest
from support import mains


def test_a_wrong_equation_ends_with_a_caret_and_one_line():
    done = mains.run("examine", "x / std_wh(x)", "x * sigmod(v1 * x)")
    assert done.returncode == 2 and not done.stdout
    *_, equation, caret, error = done.stderr.splitlines()
    assert equation == "x * sigmod(v1 * x)" and caret == "    ^"
    assert error.startswith("error: in 'x * sigmod(v1 * x)': unknown op 'sigmod'; did you mean 'sigmoid'?")


@pytest.mark.exhaustive
def test_layers_are_examined_from_the_command_line():
    config = f"--config={mains.CONFIGS}/search_mnist5k.py:quick"
    done = mains.run("examine", config, "--json", "--replicas=1", "evonorm_s0", "--", "-x / std_wh(x)")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["name"] == "evonorm_s0" and first["nearest"] == {"name": "evonorm_s0", "difference": 0}
    assert second["simplified"] == "-x / std_wh(x)" and "mean" in second
