"""What the mains say, and how they end, if they are told wrongly who they are, or cannot join the others."""

import os
import re
import socket

import pytest
from support.forks import Child, python

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
            "TPU_SKIP_MDS_QUERY": "1",  # as JAX sets it when it is imported where no TPU is
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
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "JAX_", "TPU"))}
        found = {}
        for module, config in MAINS.items():
            for name, (flags, variables, *_) in CASES.items():
                arguments = [f"--config={config}", f"--workdir={workdir}", *flags]
                arguments = [argument.format(**ports) for argument in arguments]
                variables = {"JAX_PLATFORMS": "cpu"} | variables
                environment = kept | {key: value.format(**ports) for key, value in variables.items()}
                with Child(python, "-m", module, *arguments, environment=environment) as child:
                    _, log = child.communicate()
                found[module, name] = child.returncode, log
    assert not workdir.exists()
    return found


@pytest.mark.parametrize("module", MAINS)
@pytest.mark.parametrize("name", CASES)
def test_who_cannot_join_says_why_in_a_line(outcomes, module, name):
    *_, expected, line = CASES[name]
    status, messages = outcomes[module, name]
    assert status == expected, messages
    assert re.fullmatch(f"error: {line}", messages.splitlines()[-1]), messages
    assert "Traceback" not in messages and messages.count("error: ") == 1
