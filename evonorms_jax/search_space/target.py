"""The platform that programs are traced for.

Some computations have one form for TPU and another for CPU. A program can be traced on a CPU host and run
on other devices, so the backend of the host does not tell which form is right. Whoever knows the devices of a
program traces it inside `building_for`; the forms ask `platform`.
"""

import contextlib

import jax

# A part of the key of JAX's trace caches: a function traced for one platform is traced again for another.
_platform = jax.make_user_context("")


def building_for(platform: str) -> contextlib.AbstractContextManager[None]:
    """A context in which programs are traced for a platform: "cpu", "gpu" or "tpu"."""
    return _platform(platform)


def platform() -> str:
    """The platform of the innermost `building_for`, by default JAX's own."""
    return _platform.value or jax.default_backend()


def compiler_options(platform: str) -> dict[str, bool]:
    """Options of XLA for a program with one interpreter of graphs at each site of a network.

    On a TPU all equal kernels become one routine that is called. By default only small ones do, and each site
    has its own code. The option asks for it whatever the number of sites.
    """
    return {"xla_tpu_enable_deduplicated_calls": True} if platform == "tpu" else {}
