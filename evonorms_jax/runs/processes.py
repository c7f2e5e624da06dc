"""Who is who among the processes of a run: what one may be told of it, and how JAX joins them."""

import socket
import threading
from typing import Any

import jax
from jax._src import distributed  # what JAX was told is not public

from evonorms_jax.runs.interrupt import exit_now

_NAMES = "coordinator_address, num_processes and process_id"


def check_place(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None, automatic: bool
) -> None:
    """Checks what a process was told of its place among others: all, nothing, or to find it out.

    Args:
      coordinator_address: host:port of process 0.
      num_processes: how many there are.
      process_id: which one this is, from 0 on.
      automatic: whether the cluster tells all that.

    Raises:
      ValueError: if that does not fit together.
    """
    given = coordinator_address, num_processes, process_id
    if automatic and given != (None, None, None):
        raise ValueError(f"an automatic start finds {_NAMES} out by itself: give none of them")
    if given == (None, None, None):
        return
    if coordinator_address is None or num_processes is None or process_id is None:
        raise ValueError(f"several hosts: give {_NAMES}, which go together, got {', '.join(map(str, given))}")
    if not 0 <= process_id < num_processes:
        raise ValueError(f"process_id must be from 0 to {num_processes - 1}, got {process_id}")
    split_address(coordinator_address)


def split_address(address: str) -> tuple[str, int]:
    """Host and port; `ValueError` if it is not host:port."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator_address must be host:port, got {address!r}")
    return host.strip("[]"), int(port)


def listen(port: int) -> socket.socket:
    """A socket for connections to any address of this machine.

    Raises:
      OSError: if it cannot be had.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(f"cannot listen on port {port}: {error.strerror}") from None


def check_no_pod() -> None:
    """Raises `ValueError` on a host of a TPU pod: its devices run programs with those of the others only."""
    if jax.process_count() > 1:
        raise ValueError(
            f"this is one of {jax.process_count()} hosts of a pod: start automatically (--distributed)"
        )


def join(*place: Any, timeout: float = 300.0) -> None:
    """`jax.distributed.initialize`, until the devices of all processes are there or the process ends.

    Args:
      *place: coordinator_address, num_processes and process_id; without them the cluster tells.
      timeout: seconds for all to come.

    Raises:
      ValueError: if there is no cluster that tells.
      OSError: if something fails that may go well the next time: a port that is taken, a coordinator that
        does not answer, devices that are in use.
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
        raise ValueError(f"{reason} ({error})") from None
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"cannot join the other processes: {error}") from None
    finally:
        late.cancel()


def joined() -> bool:
    """Whether the devices of several processes run programs together here."""
    return distributed.global_state.num_processes > 1
