"""Lines of an input as they come: alone for a program that waits, in lists from a file."""

import queue

from evonorms_jax.study.lines import chunks


def test_all_lines_come_in_order_without_blank_ones():
    lines = [f"{number}\n" for number in range(200)]
    made = list(chunks([*lines[:100], "\n", "  \n", *lines[100:]], most=16))
    assert [line for chunk in made for line in chunk] == lines
    assert max(map(len, made)) <= 16
    assert list(chunks([])) == []


def test_a_line_is_answered_before_the_next_one_comes():
    waiting = queue.Queue()
    found = chunks(iter(waiting.get, None))
    for line in ("first", "second"):
        waiting.put(line)
        assert next(found) == [line]
    waiting.put(None)
    assert list(found) == []
