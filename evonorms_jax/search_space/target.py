"""The platform that programs are traced for, and whether they run in a loop.

Some computations have one form for TPU and another for CPU. A program can be traced on a CPU host and run
on other devices, so the backend of the host does not tell which form is right. Whoever knows the devices of a
program traces it inside `building_for`; the forms ask `platform`. XLA:CPU has slow convolutions in loops, so
those forms ask `in_loop`, too. A form for loops is never bad, so that is the default, and whoever traces a
step outside of all loops says so with `looping(False)`. A loop within says `looping(True)` for its body.
"""

import contextlib
import re

import jax

# A part of the key of JAX's trace caches: a function traced for one platform is traced again for another.
_platform = jax.make_user_context("")
_looping = jax.make_user_context(True)
#: The iterations of a loop that a scope of `counted_loop` holds without another loop between.
COUNTED = re.compile(r"\bloop_of_(\d+)\b(?!.*/while/).*/while$")


def building_for(platform: str) -> contextlib.AbstractContextManager[None]:
    """A context in which programs are traced for a platform: "cpu", "gpu" or "tpu"."""
    return _platform(platform)


def platform() -> str:
    """The platform of the innermost `building_for`, by default JAX's own."""
    return _platform.value or jax.default_backend()


def looping(inside: bool) -> contextlib.AbstractContextManager[None]:
    """A context in which programs are traced that run in a loop of XLA, such as `scan`, or outside of all."""
    return _looping(inside)


def in_loop() -> bool:
    """Whether the innermost `looping` is one of a loop, True without any."""
    return _looping.value


def counted_loop(iterations: int) -> contextlib.AbstractContextManager[None]:
    """A scope whose name tells a reader of the compiled program how often the loop within runs.

    XLA proves the number of most loops, and forgets some when it pipelines them. `COUNTED` finds it in the
    origin of a loop, also in that of a derivative.
    """
    return jax.named_scope(f"loop_of_{iterations}")


def compiler_options(platform: str) -> dict[str, bool]:
    """Options of XLA for a program with one interpreter of graphs at each site of a network.

    On a TPU all equal kernels become one routine that is called. By default only small ones do, and each site
    has its own code. The option asks for it whatever the number of sites.
    """
    return {"xla_tpu_enable_deduplicated_calls": True} if platform == "tpu" else {}
