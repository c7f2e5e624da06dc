"""Bytes that a compiled program moves between HBM and the chip.

XLA's own count, `bytes accessed`, is that of all operands and results, wherever they lie. XLA:TPU holds many
of them in on-chip memory for a while. It then counts an array twice: once where it is copied to the chip, and
again where it is read there. Here only arrays in HBM count. The layout of an array on the chip has a memory
space, as `S(1)` in `bf16[8,128]{1,0:T(8,128)S(1)}`.

The count covers the entry computation. Loops count as one instruction, so programs with loops have no count.
"""

import math
import re

from evonorms_jax.errors import UserError

_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\](\{[^}]*\})?")
# Without transfers. The custom calls of XLA:TPU join slices that lie on the chip.
_FREE = {"parameter", "tuple", "get-tuple-element", "bitcast", "constant", "after-all", "custom-call"}


def hbm_bytes(text: str) -> int:
    """Bytes from and to HBM in a run of a program.

    Args:
      text: `compiled.as_text()` of a program for a TPU.

    Raises:
      UserError: if the program has a loop.
    """
    types: dict[str, str] = {}
    total = 0
    for line in text[text.index("\nENTRY ") :].splitlines():
        if not (match := _INSTRUCTION.match(line)):
            continue
        name, result, op, rest = match.groups()
        types[name] = result
        if op == "while":
            raise UserError(f"bytes of HBM are not counted in a program with a loop, it has {name}")
        if op in _FREE or op.endswith("-done"):
            continue
        operands = [types.get(operand, "") for operand in re.findall(r"%([\w.\-]+)", rest.split("), ")[0])]
        total += _copied(op, result) if op.endswith("-start") else sum(map(_in_hbm, (result, *operands)))
    return total


def _copied(op: str, result: str) -> int:
    """Bytes of an asynchronous copy, whose type has destination and source."""
    sizes = _sizes(result)
    if op == "copy-start":
        return sum(size for size, on_chip in sizes[:2] if not on_chip)
    # A slice to the chip reads the bytes that arrive there. Any other operation reads and writes in HBM.
    return sum(size for size, on_chip in sizes if on_chip) or _in_hbm(result)


def _in_hbm(types: str) -> int:
    return sum(size for size, on_chip in _sizes(types) if not on_chip)


def _sizes(types: str) -> list[tuple[int, bool]]:
    """Bytes of each array of a type, and whether it lies on the chip."""
    return [
        (_item_bytes(kind) * math.prod(int(side) for side in shape.split(",") if side), "S(" in layout)
        for kind, shape, layout in _ARRAY.findall(types)
        if "S(2)" not in layout  # a flag of a copy
    ]


def _item_bytes(kind: str) -> int:
    """Bytes of an element of a type such as "bf16", "pred" or "f8e4m3fn"."""
    return 1 if kind == "pred" else max(1, int(re.search(r"\d+", kind)[0]) // 8)
