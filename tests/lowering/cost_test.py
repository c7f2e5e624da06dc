"""Loops count as often as they run: a loop costs as much as the same steps written out."""

import jax
import jax.numpy as jnp
import pytest

from evonorms_jax.lowering.chips import CHIPS
from evonorms_jax.lowering.cost import Cost, ProgramCost
from evonorms_jax.lowering.programs import UNREADABLE, TpuProgram, footprint
from evonorms_jax.search_space.target import COUNTED, counted_loop

N = 16
MATMUL = 2 * N**3  # FLOPs


def compiled(function, *arguments):
    return jax.jit(function).lower(jnp.ones((N, N)), *arguments).compile()


def cost(function, *arguments, trips=()):
    return ProgramCost(compiled(function, *arguments).as_text(), dict(trips))


def repeat(count):
    return lambda x: jax.lax.fori_loop(0, count, lambda _, y: jnp.tanh(y @ x), x)


def test_a_program_without_loops_costs_what_xla_says():
    program = compiled(lambda x: jnp.tanh(x @ x) @ x)
    expected = program.cost_analysis()
    total = ProgramCost(program.as_text(), {}).total
    assert total == Cost(expected["flops"], expected["bytes accessed"])
    assert total.flops >= 2 * MATMUL


def test_every_iteration_of_a_loop_of_known_length_counts():
    once, many = (cost(repeat(count)) for count in (3, 7))
    assert many.total.flops - once.total.flops >= 4 * MATMUL
    assert (many.total - once.total).flops == pytest.approx(4 * once.iteration("while").flops)
    assert not many.once_only


def test_loops_within_loops_multiply():
    def nested(x):
        return jax.lax.fori_loop(0, 3, lambda _, y: repeat(5)(y), x)

    assert 15 * MATMUL <= cost(nested).total.flops < 16 * MATMUL + 15 * 40 * N**2


def test_the_caller_gives_the_length_of_a_loop_that_is_data():
    def dynamic(x, count):
        return jax.lax.fori_loop(0, count, lambda _, y: y @ x, x)

    unknown = cost(dynamic, jnp.int32(2))
    given = cost(dynamic, jnp.int32(2), trips={"no such origin": 3, "while": 9})
    assert unknown.total.flops < 2 * MATMUL
    assert given.total.flops >= 9 * MATMUL
    assert len(unknown.once_only) == 1
    assert not given.once_only


def test_a_scope_tells_the_length_of_a_loop_that_xla_does_not_know():
    def counted(x, count):
        with counted_loop(9):
            return jax.lax.fori_loop(0, count, lambda _, y: y @ x, x)

    found = cost(counted, jnp.int32(2))
    assert 9 * MATMUL <= found.total.flops < 10 * MATMUL and not found.once_only


@pytest.mark.parametrize(
    "origin, iterations",
    [
        ("jit(f)/loop_of_9/while", "9"),
        ("transpose(jvp(loop_of_12))/while", "12"),
        ("jit(f)/loop_of_9/while/body/loop_of_3/while", "3"),
        ("jit(f)/loop_of_9/while/body/while", None),
        ("jit(f)/loop_of_9/add", None),
    ],
)
def test_a_scope_counts_for_the_loop_right_within(origin, iterations):
    found = COUNTED.search(origin)
    assert (found and found[1]) == iterations


def test_a_loop_of_negligible_cost_and_unknown_length_is_not_reported():
    """Such as that of a random draw by rejection beside the step of a training."""

    def draw(x, count):
        small = jax.lax.fori_loop(0, count, lambda _, y: y * 0.5, x[0, 0])
        return repeat(1000)(x) + small

    assert not cost(draw, jnp.int32(2)).once_only


def test_of_two_branches_the_more_expensive_counts_with_its_loops():
    def branches(x, chosen):
        return jax.lax.cond(chosen, repeat(6), lambda x: x, x)

    assert 6 * MATMUL <= cost(branches, jnp.bool_(True)).total.flops < 7 * MATMUL + 6 * 40 * N**2


def test_a_loop_that_is_not_there_is_an_error():
    with pytest.raises(LookupError, match="no loop from 'train'"):
        cost(repeat(3)).iteration("train")


class _Unreadable:
    """A program whose text the compiler cannot print."""

    def __init__(self, program):
        self.memory_analysis, self.cost_analysis = program.memory_analysis, program.cost_analysis

    def as_text(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")


def test_a_program_that_cannot_be_printed_has_memory_and_costs_with_loops_counted_once():
    whole = compiled(repeat(7))
    read, unread = (
        footprint(TpuProgram("any", None, "batch_size"), program, 1.0, 1.0, CHIPS["v6e"])
        for program in (whole, _Unreadable(whole))
    )
    assert unread.total_memory == read.total_memory and unread.excess == 0
    assert unread.run == unread.step and 0 < unread.run.flops < 2 * MATMUL < read.run.flops
    assert unread.once_only == (UNREADABLE,) and not read.once_only
