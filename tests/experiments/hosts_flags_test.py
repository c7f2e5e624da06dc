"""What the mains say, and how they end, if they are told wrongly who they are, or cannot join the others."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Runs each command in a child of one process: importing takes seconds.
DRIVER = """
import json, os, runpy, sys, tempfile, warnings
warnings.simplefilter("ignore")
import jax
import evonorms_jax.evolution.session, evonorms_jax.report, evonorms_jax.training.loop

results = []
for module, arguments, variables in json.load(sys.stdin):
    err = tempfile.TemporaryFile("w+")
    child = os.fork()
    if not child:
        os.dup2(err.fileno(), 1), os.dup2(err.fileno(), 2)
        os.environ |= variables
        jax.config.update("jax_platforms", variables.get("JAX_PLATFORMS", "cpu"))
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(end.code or 0)
        os._exit(99)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    err.seek(0)
    results.append([status, err.read()])
json.dump(results, sys.stdout)
"""
MAINS = {
    "experiments.search": "experiments/configs/search_mnist5k.py:quick",
    "experiments.train": "experiments/configs/train.py:quick",
}
TOGETHER = "several hosts: give coordinator_address, num_processes and process_id, which go together, got "
# The flags, the environment, the exit status and the line.
CASES = {
    "no cluster": (["--distributed"], {}, 2, r"cannot join a .* job: none is found here \(.*\)"),
    "half": (["--process_id=5", "--num_processes=2"], {}, 2, TOGETHER + "None, 2, 5"),
    "outside": (
        ["--coordinator_address=h:1", "--process_id=5", "--num_processes=2"],
        {},
        2,
        "process_id must be from 0 to 1, got 5",
    ),
    "no port": (
        ["--coordinator_address=nonsense", "--process_id=0", "--num_processes=2"],
        {},
        2,
        "coordinator_address must be host:port, got 'nonsense'",
    ),
    "both": (["--distributed", "--process_id=0"], {}, 2, "an automatic start finds .*: give none of them"),
    # What may go well the next time is no refusal.
    "taken": (
        ["--coordinator_address=localhost:{taken}", "--process_id=0", "--num_processes=2"],
        {},
        1,
        r"cannot listen on port \d+: Address already in use.*",
    ),
    "in use": (
        ["--distributed"],
        {
            "JAX_PLATFORMS": "tpu",
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_NTASKS": "1",
            "SLURM_PROCID": "0",
            "SLURM_LOCALID": "0",
            "JAX_COORDINATOR_PORT": "{free}",
        },
        1,
        "cannot join the other processes: .*tpu.*",
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Exit status and messages of every case with every main."""
    workdir = tmp_path_factory.mktemp("mains") / "run"
    with socket.create_server(("", 0)) as taken, socket.create_server(("", 0)) as free:
        ports = {"taken": taken.getsockname()[1], "free": free.getsockname()[1]}
        free.close()
        commands = []
        for module, config in MAINS.items():
            for flags, variables, *_ in CASES.values():
                arguments = [f"--config={config}", f"--workdir={workdir}", *flags]
                arguments = [argument.format(**ports) for argument in arguments]
                variables = {name: value.format(**ports) for name, value in variables.items()}
                commands.append([module, arguments, variables])
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "JAX_", "TPU"))}
        child = subprocess.run(
            [sys.executable, "-c", DRIVER],
            input=json.dumps(commands),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=kept,
            check=False,
        )
    assert child.returncode == 0, child.stderr
    assert not workdir.exists()
    names = [(module, name) for module in MAINS for name in CASES]
    return dict(zip(names, json.loads(child.stdout), strict=True))


@pytest.mark.parametrize("module", MAINS)
@pytest.mark.parametrize("name", CASES)
def test_who_cannot_join_says_why_in_a_line(outcomes, module, name):
    *_, expected, line = CASES[name]
    status, messages = outcomes[module, name]
    assert status == expected, messages
    assert re.fullmatch(f"error: {line}", messages.splitlines()[-1]), messages
    assert "Traceback" not in messages and messages.count("error: ") == 1
