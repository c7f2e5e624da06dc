"""A process of a run over several hosts, for `hosts_test.py`: connects, then takes step after step.

Each step prints its name, and its result in the next line.
"""

import hashlib
import json
import os
import sys
import time

import jax
import jax.numpy as jnp

from evonorms_jax.runs.hosts import Hosts
from evonorms_jax.runs.rendezvous import connect


def values(index: int) -> list:
    """What process `index` says in three rounds: nothing, a little, and a megabyte or nothing."""
    return [None, {"index": index, "score": 0.1 + index, "pair": (1, 2)}, "ä\n" * (index * 2**17)]


def abridged(gathered: list) -> list:
    """With a digest in the place of long text: a pipe that nobody reads yet holds little."""
    return [
        hashlib.sha256(value.encode()).hexdigest() if isinstance(value, str) else value for value in gathered
    ]


def compute(steps: int) -> int:
    """Keeps both devices busy with one program, while the main thread waits for it."""
    loop = jax.pmap(lambda x: jax.lax.fori_loop(0, steps, lambda _, y: jnp.sin(y) + 1, x))
    return jax.block_until_ready(loop(jnp.zeros((2, 64)))).shape[0]


def work(seconds: float) -> int:
    """Computes for a while."""
    started, rounds = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        rounds += compute(1_000_000)
    return rounds


STEPS = {
    "gather": lambda hosts: [abridged(hosts.gather(value)) for value in values(hosts.index)],
    "broadcast": lambda hosts: hosts.broadcast({"history": [1, 2]} if hosts.leader else "not this"),
    "agree": lambda hosts: hosts.check_same("the config", {"seed": 3}),
    "differ": lambda hosts: hosts.check_same("the config", {"seed": hosts.index}),
    "devices": lambda hosts: [hosts.count, jax.local_device_count(), compute(1)],
    "compute": lambda hosts: compute(2_000_000_000),
    "work": lambda hosts: work(3.0) > 0,
    "fail": lambda hosts: 1 // 0,
    "refuse": lambda hosts: int("no\nnumber"),
    "exit": lambda hosts: sys.exit(0),
    "vanish": lambda hosts: os._exit(0),
    "close": Hosts.close,
    "tidy": lambda hosts: None,  # lets it take longer in the end
}


def run(arguments: dict, steps: list[str]) -> None:
    """Takes the steps, and ends as the mains of the experiments do."""
    try:
        take_steps(arguments, steps)
    except (ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError) else 1)


def take_steps(arguments: dict, steps: list[str]) -> None:
    with connect(**arguments) as hosts:
        try:
            for step in steps:
                print(step, flush=True)
                print(json.dumps(STEPS[step](hosts)), flush=True)
        finally:
            time.sleep(3.0 if "tidy" in steps else 0.0)
            print("tidied up", flush=True)
