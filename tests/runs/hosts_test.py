"""Several hosts: all hear the same, and when one is lost the others end soon, with one line that says so.

The hosts are processes on this machine, with two devices each.
"""

import contextlib
import json
import os
import queue
import signal
import socket
from collections.abc import Iterator, Sequence

import pytest
from support import hosts_child
from support.forks import Child
from support.hosts_child import abridged, values

from evonorms_jax.runs.hosts import Connection
from evonorms_jax.runs.rendezvous import connect, dial, listen

AGAIN = "start the same command again on all hosts to resume"
PATIENCE = 300  # s, after which something hangs
pytestmark = pytest.mark.slow


def free_port() -> int:
    """A port that is free, as is the one below it."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as above:
            port = above.getsockname()[1]
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port - 1)):
                return port


class Process(Child):
    """A child that takes steps."""

    def __init__(self, arguments: dict, steps: str, variables: dict):
        super().__init__(hosts_child.run, arguments, steps.split(), environment=environment(variables))
        self._read = 0

    def reach(self, step: str) -> None:
        """Returns once the child begins the step; output up to there is forgotten."""
        self.wait_for(f"{step}\n")
        self._read = self.output().index(f"{step}\n") + len(step) + 1

    def end(self) -> tuple[int, str, str]:
        """Exit status, standard output after the step that was waited for, standard error."""
        output, errors = self.communicate(PATIENCE)
        return self.returncode, output[self._read :], errors

    def ended_with(self, line: str, expected: int = 1) -> str:
        """The exit status and this line, the only one of its kind and the last of all; the output."""
        status, output, errors = self.end()
        assert status == expected, errors
        assert errors.splitlines()[-1:] == [f"error: {line}"]
        assert errors.count("error:") == 1 and "Traceback" not in errors and "***" not in errors
        return output


def environment(variables: dict) -> dict:
    """That of a host with two CPU devices."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OMPI"))}
    return kept | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PJRT_NPROC": "16"} | variables


@pytest.fixture
def started() -> Iterator:
    """Starts a process for each string of steps, and stops those that are left at the end."""
    with contextlib.ExitStack() as stack:

        def start_all(steps: Sequence[str], arguments: Sequence[dict], variables: Sequence[dict]):
            own = zip(arguments, steps, variables, strict=True)
            return [stack.enter_context(Process(*each)) for each in own]

        yield start_all


@pytest.fixture
def start(started):
    """Starts one process for each string of steps, with arguments of all or `each`, and gives them back."""

    def start_all(*steps: str, each: tuple[dict, ...] = (), **common) -> list[Process]:
        address = f"127.0.0.1:{free_port()}"
        arguments = [
            {"coordinator_address": address, "num_processes": len(steps), "process_id": index}
            | common
            | (each[index] if each else {})
            for index in range(len(steps))
        ]
        return started(steps, arguments, [{}] * len(steps))

    return start_all


@pytest.fixture
def start_job(started):
    """Starts the processes of a Slurm job, which JAX finds as it finds a Cloud TPU pod."""

    def start_all(*steps: str, count: int | None = None, **arguments) -> list[Process]:
        job = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "localhost", "SLURM_LOCALID": "0"}
        job |= {"SLURM_NTASKS": str(count or len(steps)), "JAX_COORDINATOR_PORT": str(free_port())}
        variables = [job | {"SLURM_PROCID": str(index)} for index in range(len(steps))]
        return started(steps, [{"automatic": True} | arguments] * len(steps), variables)

    return start_all


def results(process: Process) -> list:
    """What the steps gave."""
    status, output, errors = process.end()
    assert status == 0, errors
    return [json.loads(line) for line in output.splitlines()[1::2]]


def test_all_hear_the_same_in_the_order_of_the_processes(start):
    first, second = (results(process) for process in start(*["gather broadcast agree devices"] * 2))
    assert first == second
    gathered, broadcast, agreed, devices = first
    expected = [abridged(pair) for pair in zip(values(0), values(1), strict=True)]
    assert gathered == json.loads(json.dumps(expected))
    assert (broadcast, agreed, devices) == ({"history": [1, 2]}, None, [2, 2, 2])


def test_a_single_process_hears_itself_as_json_gives_it():
    with connect() as hosts:
        assert (hosts.index, hosts.count, hosts.leader) == (0, 1, True)
        assert hosts.gather({"pair": (1, 2)}) == [{"pair": [1, 2]}]
        assert hosts.broadcast((3,)) == [3]
        hosts.check_same("anything", 1)


def test_one_of_one_needs_nobody():
    assert connect("127.0.0.1:1", 1, 0).gather(5) == [5]


def test_hosts_that_were_started_differently_all_say_so(start):
    for process in start("differ", "differ"):
        process.ended_with("the config differs between process 0 and process 1", 2)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_host_ends_another_that_computes(start, killed):
    """For much longer than this test may take."""
    processes = start("gather compute", "gather compute")
    for process in processes:
        process.reach("compute")
    processes[killed].send_signal(signal.SIGKILL)
    processes[1 - killed].ended_with(f"lost process {killed} (127.0.0.1): its connection closed; {AGAIN}")


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_host_ends_another_that_waits_for_it(start, killed):
    """That one gets the time to tidy up."""
    steps = ["gather gather tidy"] * 2
    steps[killed] = "gather compute"
    processes = start(*steps)
    processes[killed].reach("compute")
    processes[killed].send_signal(signal.SIGKILL)
    line = f"lost process {killed} (127.0.0.1): its connection closed; {AGAIN}"
    assert "tidied up" in processes[1 - killed].ended_with(line)


def test_all_others_hear_which_host_was_lost(start):
    processes = start("compute", "gather", "compute")
    processes[0].reach("compute")
    processes[2].reach("compute")
    processes[2].send_signal(signal.SIGKILL)
    for process in processes[:2]:
        process.ended_with(f"lost process 2 (127.0.0.1): its connection closed; {AGAIN}")


@pytest.mark.parametrize("silent", [0, 1])
def test_a_host_that_falls_silent_is_lost(start, silent):
    """As when its machine is without power, or cut off."""
    processes = start("gather compute", "gather compute", lost_after=2.0)
    for process in processes:
        process.reach("compute")
    processes[silent].send_signal(signal.SIGSTOP)
    processes[1 - silent].ended_with(f"lost process {silent} (127.0.0.1): silent for 2 s; {AGAIN}")


def test_a_slow_host_is_not_lost(start):
    first, second = start("work gather gather", "gather work gather", lost_after=1.5)
    assert results(first)[1:] == results(second)[::2]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("vanish", "lost process 1 (127.0.0.1): its connection closed"),
        ("exit", "process 1 ended by SystemExit, see its output"),
        ("fail", "process 1 ended by ZeroDivisionError, see its output"),
    ],
)
def test_a_host_that_ends_too_early_ends_the_others(start, step, reason):
    first, _ = start("gather compute", f"gather {step}")
    first.ended_with(f"{reason}; {AGAIN}")


@pytest.mark.parametrize(("refuses", "others"), [(0, "gather compute"), (1, "gather gather")])
def test_what_one_host_refuses_all_refuse(start, refuses, others):
    """Whether they wait or compute: starting again would not mend it."""
    steps = [others] * 3
    steps[refuses] = "gather refuse"
    line = "invalid literal for int() with base 10: 'no\\nnumber'"
    for index, process in enumerate(start(*steps)):
        process.ended_with(line if index == refuses else f"process {refuses}: {line}", 2)


def test_hosts_with_the_same_error_each_say_their_own(start):
    for process in start("gather fail", "gather fail"):
        status, _, errors = process.end()
        assert status == 1 and errors.splitlines()[-1].startswith("ZeroDivisionError")


@pytest.mark.parametrize("early", [0, 1])
def test_who_has_taken_leave_is_not_missed(start, early):
    steps = ["gather work"] * 3
    steps[early] = "gather close"
    for process in start(*steps, lost_after=1.0):
        results(process)


def test_who_has_taken_leave_cannot_be_waited_for(start):
    first, second = start("gather gather", "gather close")
    results(second)
    first.ended_with("process 1 (127.0.0.1) has left the run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"coordinator_address": "h:1"}, "go together, got h:1, None, None"),
        ({"num_processes": 2, "process_id": 0}, "go together, got None, 2, 0"),
        ({"coordinator_address": "h:1", "num_processes": 2, "process_id": 2}, "must be from 0 to 1, got 2"),
        ({"coordinator_address": "h:1", "num_processes": 2, "process_id": -1}, "must be from 0 to 1, got -1"),
        ({"coordinator_address": "h", "num_processes": 2, "process_id": 0}, "be host:port, got 'h'"),
        ({"coordinator_address": ":12", "num_processes": 2, "process_id": 0}, "be host:port, got ':12'"),
        ({"coordinator_address": "h:123456", "num_processes": 2, "process_id": 0}, "be host:port"),
        ({"automatic": True, "process_id": 0}, "by itself: give none of them"),
    ],
)
def test_arguments_that_do_not_fit_together(arguments, message):
    with pytest.raises(ValueError, match=message):
        connect(**arguments)


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"num_processes": 3}, "num_processes is 2 on process 0 and 3 on process 1"),
        ({"num_processes": 3, "process_id": 2}, "num_processes is 2 on process 0 and 3 on process 2"),
    ],
)
def test_processes_that_do_not_fit_together_both_say_why(start, other, line):
    for process in start("gather", "gather", each=({}, other)):
        process.ended_with(line, 2)


@pytest.mark.parametrize("arguments", [(), ("h:1", 2, 0)])
def test_a_host_of_a_pod_does_not_take_itself_for_the_only_one(monkeypatch, arguments):
    monkeypatch.setattr("jax.process_count", lambda: 4)
    with pytest.raises(ValueError, match="one of 4 hosts of a pod: start automatically"):
        connect(*arguments)


def test_two_processes_with_the_same_index(start):
    one = {"process_id": 1}
    for process in start("gather", "gather", "gather", each=({}, one, one)):
        process.ended_with("two processes have the process_id 1", 2)


def test_a_stranger_at_the_door_is_turned_away(start):
    port = free_port()
    address = {"coordinator_address": f"127.0.0.1:{port}", "num_processes": 2}
    (first,) = start("gather", **address)
    for words in (b"", b"\n", b"GET / HTTP/1.1\r\n\r\n", b"=[1]\n", b"=17\n", b"x" * 1000):
        with dial("127.0.0.1", port, PATIENCE) as stranger:
            stranger.sendall(words)
    (second,) = start("gather", **address, process_id=1)
    assert results(first) == results(second)


def test_half_a_line_is_none():
    """As a process leaves it that is killed while it sends."""
    with listen(0) as listener:
        theirs = dial("127.0.0.1", listener.getsockname()[1], PATIENCE)
        ours, _ = listener.accept()
    reasons = queue.SimpleQueue()
    connection = Connection(ours, "the peer", reasons.put, PATIENCE)
    theirs.sendall(b"=12\n=34")
    theirs.close()
    assert reasons.get().startswith("lost the peer: its connection closed")
    assert (connection.received.get(), connection.received.empty()) == (b"=12", True)


def test_nobody_comes():
    with pytest.raises(TimeoutError, match=r"process 1, 2 did not come within 0.2 s"):
        connect(f"127.0.0.1:{free_port()}", 3, 0, timeout=0.2)
    with pytest.raises(TimeoutError, match=r"no answer from 127.0.0.1:\d+ within 0.2 s: Connection refused"):
        connect(f"127.0.0.1:{free_port()}", 3, 1, timeout=0.2)


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on port {port}: Address already in use"):
            connect(f"127.0.0.1:{port}", 2, 0)


def test_a_job_is_found_out(start_job):
    first, second = (results(process) for process in start_job(*["gather devices"] * 2))
    assert first == second and first[1] == [2, 2, 2]


@pytest.mark.parametrize(("killed", "by"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGTERM)])
def test_a_killed_host_ends_a_job(start_job, killed, by):
    """Without JAX having a word in it: it would swallow SIGTERM, and print a stack trace."""
    processes = start_job("gather compute", "gather compute")
    for process in processes:
        process.reach("compute")
    processes[killed].send_signal(by)
    name = ("process 0 (localhost)", "process 1 (127.0.0.1)")[killed]
    processes[1 - killed].ended_with(f"lost {name}: its connection closed; {AGAIN}")


def test_a_job_of_which_not_all_come(start_job):
    (first,) = start_job("gather", count=2, timeout=1.0)
    first.ended_with("not all processes of this job came within 1 s")


def test_no_job_is_found(start):
    nothing = dict.fromkeys(("coordinator_address", "num_processes", "process_id"))
    (only,) = start("gather", automatic=True, **nothing)
    status, _, errors = only.end()
    assert status == 2
    assert errors.splitlines()[-1].startswith("error: cannot join a Cloud TPU pod, Slurm or Open MPI job: ")
