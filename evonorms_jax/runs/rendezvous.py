"""How the processes of a run find each other: checks their flags, joins `jax.distributed`, connects hosts.

A training over several hosts is one program, so `join` leaves `jax.distributed` up. A search needs it only to
learn the place of each process in a pod, and shuts it down: while it is up, the end of process 0 aborts all
others, and so does a coordinator that does not answer.
"""

import json
import socket
import threading
import time
from typing import Any

import jax
from absl import logging
from jax._src import distributed  # neither the place of a process nor the address of process 0 is public

from evonorms_jax.errors import UserError
from evonorms_jax.runs.hosts import REFUSED, VALUE, Connection, Hosts
from evonorms_jax.runs.interrupt import exit_now

_NAMES = "coordinator_address, num_processes and process_id"
_NEWCOMER = 5.0  # s in which a new connection has to name its process
_RETRY = 0.25  # s between two attempts to connect


def check_place(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, automatic: bool
) -> None:
    """Raises `ValueError` if arguments of `connect` do not fit together: all, none or `automatic` alone."""
    given = coordinator_address, num_processes, process_id
    if automatic and given != (None, None, None):
        raise UserError(f"an automatic start finds {_NAMES} out by itself: give none of them")
    if given == (None, None, None):
        return
    if coordinator_address is None or num_processes is None or process_id is None:
        raise UserError(f"several hosts: give {_NAMES}, which go together, got {', '.join(map(str, given))}")
    if not 0 <= process_id < num_processes:
        raise UserError(f"process_id must be from 0 to {num_processes - 1}, got {process_id}")
    split_address(coordinator_address)


def split_address(address: str) -> tuple[str, int]:
    """Host and port. Raises `ValueError` if the address is not host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"coordinator_address must be host:port, got {address!r}")
    return host.strip("[]"), int(port)


# -- One program over all hosts: training


def check_no_pod() -> None:
    """Raises `ValueError` on a host of a TPU pod: its devices run programs with those of the others only."""
    if jax.process_count() > 1:
        raise UserError(
            f"this is one of {jax.process_count()} hosts of a pod: start automatically (--distributed)"
        )


def join(*place: Any, timeout: float = 300.0) -> None:
    """`jax.distributed.initialize`, until the devices of all processes are known or the process ends.

    Args:
      *place: coordinator_address, num_processes and process_id; without them the cluster tells.
      timeout: seconds for all processes to join.

    Raises:
      ValueError: if there is no cluster that tells.
      OSError: if something fails that may work the next time: a port that is in use, a coordinator that does
        not answer, devices that are in use.
    """
    address, _, index = place or (None, None, None)
    if index == 0:
        listen(split_address(address)[1]).close()  # JAX crashes where it cannot
    # JAX's own deadline, which comes later, is an abort, and devices of a pod wait for each other for ever.
    late = threading.Timer(timeout, exit_now, [f"not all processes of this job came within {timeout:g} s"])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(*place, initialization_timeout=round(timeout) + 60)
        jax.devices()  # those of a pod start together
    except ValueError as error:
        reason = "cannot join a Cloud TPU pod, Slurm or Open MPI job: none is found here"
        raise UserError(f"{reason} ({error})") from None
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"cannot join the other processes: {error}") from None
    finally:
        late.cancel()


def joined() -> bool:
    """Whether the devices of several processes run programs together here."""
    return distributed.global_state.num_processes > 1


# -- Messages between hosts with programs of their own: search


def connect(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    automatic: bool = False,
    timeout: float = 300.0,
    lost_after: float = 30.0,
) -> Hosts:
    """Waits for the other hosts of a run. To be called before anything touches a device.

    Args:
      coordinator_address: host:port of process 0, the same on all hosts. A single process has no address.
      num_processes: number of processes, the same on all hosts.
      process_id: number of this one, from 0.
      automatic: whether `jax.distributed.initialize()` finds these three, which knows Cloud TPU pods, Slurm
        and Open MPI. Process 0 listens one port below the coordinator's.
      timeout: seconds for all hosts to connect.
      lost_after: seconds of silence after which a host is lost. A killed one is lost at once.

    Raises:
      ValueError: if the arguments do not fit together or to those of the others, no cluster is found, or
        this is a host of a TPU pod, where the start has to be automatic.
      OSError: if not all hosts connect in time, process 0 cannot have its port, or the devices are in use.
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


def _find_leader(hosts: Hosts, host: str, port: int, timeout: float, lost_after: float) -> None:
    logging.info("process %d waits for process 0 at %s:%d", hosts.index, host, port)
    leader = Connection(dial(host, port, timeout), f"process 0 ({host})", hosts.lost, lost_after)
    hosts.connections[0] = leader
    leader.send(VALUE + json.dumps([hosts.index, hosts.count]).encode())
    hosts.receive(0)  # all have come


def _wait_for_all(hosts: Hosts, port: int, timeout: float, lost_after: float) -> None:
    deadline = time.monotonic() + timeout
    with listen(port) as listener:
        while missing := ", ".join(str(i) for i in range(1, hosts.count) if i not in hosts.connections):
            logging.info("process 0 waits on port %d for process %s", port, missing)
            listener.settimeout(max(deadline - time.monotonic(), 1e-3))
            try:
                newcomer, address = listener.accept()
            except TimeoutError:
                reason = f"process {missing} did not come within {timeout:g} s"
                hosts.fail(reason)
                raise TimeoutError(reason) from None
            _admit(hosts, newcomer, address[0].removeprefix("::ffff:"), lost_after)
    for connection in hosts.connections.values():
        connection.send(VALUE)


def _admit(hosts: Hosts, newcomer: socket.socket, address: str, lost_after: float) -> None:
    """Adds a process that names itself, or raises `ValueError` on both sides if it does not fit the run."""
    newcomer.settimeout(_NEWCOMER)
    try:
        with newcomer.makefile("rb", buffering=0) as lines:
            index, count = json.loads(lines.readline(100).removeprefix(VALUE))
    except (OSError, ValueError, TypeError):
        newcomer.close()  # no process of a search
        return
    connection = Connection(newcomer, f"process {index} ({address})", hosts.lost, lost_after)
    reason = ""
    if count != hosts.count:
        reason = f"num_processes is {hosts.count} on process 0 and {count} on process {index}"
    elif index in hosts.connections:
        reason = f"two processes have the process_id {index}"
    if reason:
        hosts.fail(reason, refused=True)
        connection.leave(REFUSED + reason.encode())
        raise UserError(reason)
    hosts.connections[index] = connection


# -- Sockets


def listen(port: int) -> socket.socket:
    """A socket for connections to any address of this machine. Raises `OSError` without the port."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(f"cannot listen on port {port}: {error.strerror}") from None


def dial(host: str, port: int, timeout: float) -> socket.socket:
    """A connection to a process that listens here within `timeout` seconds, or `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            left = max(deadline - time.monotonic(), 4 * _RETRY)
            connected = socket.create_connection((host, port), timeout=left)
            if connected.getsockname() != connected.getpeername():
                return connected
            connected.close()  # where no process listens, TCP may answer itself
            why = "no process listens"
        except OSError as error:
            why = error.strerror or str(error)
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer from {host}:{port} within {timeout:g} s: {why}")
        time.sleep(_RETRY)
