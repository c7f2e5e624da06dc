"""How the hosts of a run find each other.

`jax.distributed` serves to learn who is who in a pod, and no longer: while it is up, the end of process 0
aborts all others, wherever they are, and so does a coordinator that does not answer.
"""

import json
import socket
import time

import jax
from absl import logging
from jax._src import distributed  # the address of process 0 is not public

from evonorms_jax.runs.connection import REFUSED, VALUE, Link, dial
from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.runs.processes import check_no_pod, check_place, join, listen, split_address

_NEWCOMER = 5.0  # s that one gets to say who it is


def connect(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    automatic: bool = False,
    timeout: float = 300.0,
    lost_after: float = 30.0,
) -> Hosts:
    """Waits for the other hosts of a run; to be called before anything touches a device.

    Args:
      coordinator_address: host:port of process 0, the same on all hosts; None if there is one process only.
      num_processes: how many there are, the same on all hosts.
      process_id: which one this is, from 0 on.
      automatic: these three are found out by `jax.distributed.initialize()`, which knows Cloud TPU pods,
        Slurm and Open MPI; process 0 listens one port below the coordinator's.
      timeout: seconds for all hosts to come.
      lost_after: seconds of silence after which a host is lost; one that is killed is lost at once.

    Raises:
      ValueError: if the arguments do not fit together or to those of the others, nothing is found out, or
        this is a host of a TPU pod, where the start has to be automatic.
      OSError: if not all hosts come in time, process 0 cannot have its port, or the devices are in use.
    """
    check_place(coordinator_address, num_processes, process_id, automatic)
    if automatic:
        coordinator_address, num_processes, process_id = _find_out(timeout)
    else:
        check_no_pod()
    if coordinator_address is None:
        return Hosts()
    host, port = split_address(coordinator_address)
    hosts = Hosts(process_id, num_processes)
    if num_processes > 1 and hosts.leader:
        _wait_for_all(hosts, port, timeout, lost_after)
    elif num_processes > 1:
        _find_leader(hosts, host, port, timeout, lost_after)
    return hosts


def _find_leader(hosts: Hosts, host: str, port: int, timeout: float, lost_after: float) -> None:
    logging.info("process %d waits for process 0 at %s:%d", hosts.index, host, port)
    link = Link(dial(host, port, timeout), f"process 0 ({host})", hosts.lost, lost_after)
    hosts.links[0] = link
    link.send(VALUE + json.dumps([hosts.index, hosts.count]).encode())
    hosts.receive(0)  # all have come


def _wait_for_all(hosts: Hosts, port: int, timeout: float, lost_after: float) -> None:
    deadline = time.monotonic() + timeout
    with listen(port) as listener:
        while missing := ", ".join(str(i) for i in range(1, hosts.count) if i not in hosts.links):
            logging.info("process 0 waits on port %d for process %s", port, missing)
            listener.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                connection, address = listener.accept()
            except TimeoutError:
                reason = f"process {missing} did not come within {timeout:g} s"
                hosts.fail(reason)
                raise TimeoutError(reason) from None
            _admit(hosts, connection, address[0].removeprefix("::ffff:"), lost_after)
    for link in hosts.links.values():
        link.send(VALUE)


def _admit(hosts: Hosts, connection: socket.socket, address: str, lost_after: float) -> None:
    """Takes in a process that says who it is; raises `ValueError`, here and there, if that cannot be."""
    connection.settimeout(_NEWCOMER)
    try:
        with connection.makefile("rb", buffering=0) as lines:
            index, count = json.loads(lines.readline(100).removeprefix(VALUE))
    except (OSError, ValueError, TypeError):
        connection.close()  # no process of a search
        return
    link = Link(connection, f"process {index} ({address})", hosts.lost, lost_after)
    reason = ""
    if count != hosts.count:
        reason = f"num_processes is {hosts.count} on process 0 and {count} on process {index}"
    elif index in hosts.links:
        reason = f"two processes have the process_id {index}"
    if reason:
        hosts.fail(reason, refused=True)
        link.leave(REFUSED + reason.encode())
        raise ValueError(reason)
    hosts.links[index] = link


def _find_out(timeout: float) -> tuple[str, int, int]:
    """Address, number and index of the processes, from the pod or job that this one is part of."""
    jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM for itself
    join(timeout=timeout)
    job = distributed.global_state
    host, port = split_address(job.coordinator_address)
    found = f"{host}:{port - 1}", job.num_processes, job.process_id
    jax.distributed.shutdown()
    # In a pod Orbax does not save without such a service, and JAX keeps no programs where it is not process 0
    # of one: from here on each has its own.
    job.initialize(f"localhost:{_free_port()}", 1, 0, cluster_detection_method="deactivate")
    return found


def _free_port() -> int:
    with socket.create_server(("localhost", 0)) as probe:
        return probe.getsockname()[1]
