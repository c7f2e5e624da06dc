"""Bytes from and to HBM: arrays on the chip do not count, and asynchronous copies count once."""

import pytest

from evonorms_jax.lowering.transfers import hbm_bytes

CALLED = "%f (p: f32[4]) -> f32[4] {\n  ROOT %x = f32[99]{0} negate(%p)\n}\n\n"
HEAD = f"HloModule m\n\n{CALLED}ENTRY %main (a: f32[8]) {{\n"
ON_CHIP = "{0:T(128)S(1)}"


def count(*lines):
    return hbm_bytes(HEAD + "\n".join(f"  {line}" for line in lines) + "\n}\n")


PARAMETER = "%a = f32[8]{0:T(128)} parameter(0)"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%b = bf16[8]{0:T(128)} fusion(%a), kind=kLoop, calls=%f", 32 + 16),
        (f"%b = bf16[8]{ON_CHIP} fusion(%a), kind=kLoop, calls=%f", 32),
        ("%b = (f32[8]{0}, pred[8]{0}) fusion(%a, %a), kind=kLoop, calls=%f", 64 + 32 + 8),
        (f"%b = (f32[8]{ON_CHIP}, f32[8]{{0:T(128)}}, u32[]{{:S(2)}}) copy-start(%a)", 32),
        (f"%b = ((f32[8]{{0}}), f32[2]{ON_CHIP}, s32[]{{:S(2)}}) slice-start(%a), slice={{[0:2]}}", 8),
        ("%b = f32[2,4]{1,0} bitcast(%a)", 0),
        ("ROOT %b = (f32[8]{0}) tuple(%a)", 0),
    ],
)
def test_only_arrays_in_hbm_count(line, expected):
    assert count(PARAMETER, line) == expected


def test_a_result_on_the_chip_is_read_for_free():
    written = f"%b = f32[8]{ON_CHIP} fusion(%a), kind=kLoop, calls=%f"
    assert count(PARAMETER, written, "%c = f32[8]{0:T(128)} fusion(%b), kind=kLoop, calls=%f") == 64


def test_a_program_with_a_loop_has_no_count():
    with pytest.raises(ValueError, match="not counted in a program with a loop, it has w"):
        count(PARAMETER, "%w = f32[8]{0} while(%a), condition=%f, body=%f")
