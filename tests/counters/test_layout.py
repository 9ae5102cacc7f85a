"""Blocks of counters: each field is where the layout says, and sums are exact."""

import pytest

from flashpol._fastpath import BLOCK_SIZE, LAYOUT
from flashpol.counters.layout import WORD, Block
from flashpol.counters.shared import SharedCounters


@pytest.fixture
def shared() -> SharedCounters:
    return SharedCounters(1, 1)


@pytest.mark.parametrize("field", LAYOUT)
def test_block_field_is_read_at_its_offset_in_the_layout(shared: SharedCounters, field: str) -> None:
    offset, count = LAYOUT[field]
    words = shared.memory(0, 0).cast("Q")
    for index in range(count):
        words[offset // WORD + index] = index + 7
    assert shared.block(0, 0).all(field) == [index + 7 for index in range(count)]
    assert shared.block(0, 0)[field] == 7
    assert all(not any(shared.block(0, 0).all(other)) for other in LAYOUT if other != field)


def test_block_unknown_field_raises_key_error(shared: SharedCounters) -> None:
    with pytest.raises(KeyError):
        shared.block(0, 0)["no_such_field"]


def test_block_replies_are_the_sum_of_the_histogram(shared: SharedCounters) -> None:
    offset, count = LAYOUT["buckets"]
    words = shared.memory(0, 0).cast("Q")
    for index in range(count):
        words[offset // WORD + index] = 10**index
    assert shared.block(0, 0).replies == int("1" * count)


def test_block_total_after_later_writes_keeps_its_values(shared: SharedCounters) -> None:
    live, total = shared.block(0, 0), Block.total(iter([shared.block(0, 0)]))
    words = shared.memory(0, 0).cast("Q")
    for index in range(BLOCK_SIZE // WORD):
        words[index] = 5
    assert (live["accepted"], total["accepted"]) == (5, 0)
