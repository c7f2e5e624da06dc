"""The command line that all mains share: one line for what the user can mend."""

import json
import os
import re

import pytest
from support.forks import Child, python

CONFIG = """
import os
from ml_collections import ConfigDict, config_dict

os.environ["EXECUTED"] = os.environ.get("EXECUTED", "") + "x"

def get_config(form="full"):
    if form not in ("full", "quick"):
        raise ValueError(f"there is no form {form!r}, only 'quick'")
    return ConfigDict({
        "steps": 10, "flip": False, "name": "x", "anchors": ("a", "b"),
        "width": config_dict.placeholder(float),
        "proxy": {"steps": 5 if form == "full" else 1, "learning_rate": 0.1},
    })
"""
MAIN = '''
"""A main for tests.

  python -m main --config=config.py
"""
import json, os
import jax, numpy
from absl import logging
from jax._src import distributed
from evonorms_jax.data import load
from evonorms_jax.models import get_model
from evonorms_jax.training import loop
from experiments import flags

CONFIG, WORKDIR = flags.define_config()

def main(argv):
    logging.info("working in %s", WORKDIR.value)
    match WORKDIR.value:
        case "misnamed": get_model("resnet5")
        case "bug": loop._means([{"loss": numpy.ones(2)}], 1)  # a ValueError from within the package
        case "absent": load("tfds:nothing", data_dir=".")
        case "stopped": raise KeyboardInterrupt("stopped and saved at step 3")
        case "memory": jax.numpy.zeros(2**50)
        case "error": raise jax.errors.JaxRuntimeError("INTERNAL: what else there is")
        case "lost":
            distributed.global_state.num_processes = 2
            raise jax.errors.JaxRuntimeError("INTERNAL: what else there is")
        case "once": print(os.environ["EXECUTED"])
        case "settings": print(jax.config.jax_compilation_cache_dir)
        case _: print(json.dumps(CONFIG.value.to_dict()))

flags.run(main, example="config.py")
'''
GOOD = ["--config=config.py", "--workdir=run"]
USAGE_ERRORS = [
    (["--workdir=run"], "the flag --config is required; --help tells more"),
    (["--config=config.py"], "the flag --workdir is required; --help tells more"),
    (["--config=confg.py"], "there is no config file 'confg.py'; did you mean 'config.py'?"),
    (["--config=config.py:quik"], "--config=config.py:quik: there is no form 'quik', only 'quick'"),
    (["--config=main.txt"], "the config file must be Python, got 'main.txt'"),
    (["--config=empty.py"], "empty.py is no config file: it has no function get_config"),
    ([*GOOD, "--config.stps=3"], "the config has no key 'stps'; did you mean 'steps'?"),
    ([*GOOD, "--config.qqq=3"], "the config has no key 'qqq'; --help lists them"),
    ([*GOOD, "--config.prxy.steps=3"], "the config has no key 'prxy.steps'; did you mean 'proxy.steps'?"),
    (
        [*GOOD, "--config.proxy.stps=3"],
        "config.proxy.stps: proxy has learning_rate, steps; did you mean 'steps'?",
    ),
    ([*GOOD, "--config.proxy=3"], "the config has no key 'proxy'; did you mean 'proxy.steps'?"),
    ([*GOOD, "--config.steps=ten"], "--config.steps takes a whole number, got 'ten'"),
    ([*GOOD, "--config.proxy.learning_rate=1e"], "--config.proxy.learning_rate takes a number, got '1e'"),
    ([*GOOD, "--config.width=wide"], "--config.width takes a number, got 'wide'"),
    ([*GOOD, "--config.flip=maybe"], "--config.flip takes true or false, got 'maybe'"),
    ([*GOOD, "--config.anchors=(1, 2)"], "--config.anchors takes strs, got 1"),
    ([*GOOD, "--config.anchors=a,b"], "--config.anchors: repeat the flag for each of 'a,b'"),
    (["--config=config.py", "--wrkdir=run"], "unknown flag --wrkdir; did you mean 'workdir'?"),
    ([*GOOD, "run"], "unexpected argument 'run': flags are --NAME=VALUE"),
    (["--config=config.py", "--workdir=misnamed"], r"unknown model 'resnet5': did you mean 'resnet50'\? .*"),
]
OTHERS = {
    "help": ["--help"],
    "help of a form": ["--config=config.py:quick", "--help"],
    "overrides": [
        *GOOD,
        "--config.proxy.steps=7",
        "--config.anchors=c",
        "--config.anchors=d",
        "--config.width",
        "2",
        "--config.flip",
    ],
    "bug": ["--config=config.py", "--workdir=bug"],
    "absent": ["--config=config.py", "--workdir=absent"],
    **{name: ["--config=config.py", f"--workdir={name}"] for name in ("memory", "error", "lost")},
    "stopped": ["--config=config.py", "--workdir=stopped"],
    "negated": [*GOOD, "--config.flip=true", "--noconfig.flip", "--config.anchors=('c', 'd')"],
    **{name: ["--config=config.py", f"--workdir={name}"] for name in ("once", "settings")},
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Exit status, output and errors of every command line above."""
    folder = tmp_path_factory.mktemp("mains")
    (folder / "main.py").write_text(MAIN)
    (folder / "config.py").write_text(CONFIG)
    (folder / "empty.py").write_text("")
    (folder / "main.txt").write_text("")
    environment = os.environ | {"EVONORMS_CACHE": str(folder / "cache")}
    found = {"folder": folder}
    for name, arguments in (OTHERS | {message: given for given, message in USAGE_ERRORS}).items():
        with Child(python, "-m", "main", *arguments, environment=environment, folder=folder) as child:
            output, log = child.communicate()
        found[name] = [child.returncode, output, log]
    return found


@pytest.mark.parametrize("message", [message for _, message in USAGE_ERRORS])
def test_a_usage_error_is_one_line(outcomes, message):
    status, out, err = outcomes[message]
    lines = [line for line in err.splitlines() if "working in" not in line]
    assert (status, out, len(lines)) == (2, "", 1), err
    expected = message if message.endswith(".*") else re.escape(message)
    assert re.fullmatch(f"error: {expected}", lines[0]), lines[0]


def test_a_bug_shows_its_traceback(outcomes):
    status, _, err = outcomes["bug"]
    assert status == 1 and "Traceback" in err and "error: " not in err.replace("Error: ", "")


def test_what_goes_wrong_later_is_one_line_too(outcomes):
    status, out, err = outcomes["absent"]
    assert (status, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: no array_record data of tfds:nothing")


def test_too_little_memory_says_what_to_lower(outcomes):
    status, out, err = outcomes["memory"]
    assert (status, out) == (1, "") and "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: a device is out of memory: ")
    assert "batch_size" in err and "round_size" in err and "RESOURCE_EXHAUSTED: " in err


def test_a_host_can_be_lost_only_where_several_train_together(outcomes):
    status, _, err = outcomes["lost"]
    assert status == 1 and "Traceback" not in err
    assert err.splitlines()[-1].startswith("error: a step with the other hosts failed; ")
    status, _, err = outcomes["error"]
    assert status == 1 and "Traceback" in err and "other hosts" not in err


def test_ctrl_c_says_what_was_saved(outcomes):
    status, out, err = outcomes["stopped"]
    assert (status, out) == (130, "")
    assert err.splitlines()[-1] == "stopped and saved at step 3" and "Traceback" not in err


def test_overrides_reach_the_config(outcomes):
    status, out, _ = outcomes["overrides"]
    assert status == 0
    assert json.loads(out) == {
        "steps": 10,
        "flip": True,
        "name": "x",
        "anchors": ["c", "d"],
        "width": 2.0,
        "proxy": {"steps": 7, "learning_rate": 0.1},
    }


def test_a_truth_value_can_be_negated_and_a_tuple_given_as_one_text(outcomes):
    status, out, _ = outcomes["negated"]
    assert status == 0
    assert json.loads(out)["flip"] is False and json.loads(out)["anchors"] == ["c", "d"]


def test_the_config_file_is_executed_once(outcomes):
    assert outcomes["once"][:2] == [0, "x\n"]


def test_help_tells_flags_keys_and_values(outcomes):
    status, out, err = outcomes["help"]
    assert (status, err) == (0, "")
    assert out.startswith("A main for tests.") and "python -m main --config=config.py" in out
    assert re.search(r"^  --config: Config file", out, re.M) and re.search(r"^  --workdir: ", out, re.M)
    assert re.search(r"^  anchors +\('a', 'b'\)$", out, re.M) and re.search(r"^  proxy.steps +5$", out, re.M)
    assert re.search(r"^  proxy.steps +1$", outcomes["help of a form"][1], re.M)


def test_the_compilation_cache_is_on(outcomes):
    assert outcomes["settings"][:2] == [0, str(outcomes["folder"] / "cache") + "\n"]
