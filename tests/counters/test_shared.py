"""The mapping of a generation: no two words overlap, other processes see them, totals add up."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol._fastpath import BLOCK_SIZE, LAYOUT
from flashpol._pump import ENDS
from flashpol.counters.shared import SharedCounters
from testkit.examples import examples

SLOTS, LISTENERS = 3, 2
PAIRS = [(slot, listener) for slot in range(SLOTS) for listener in range(LISTENERS)]
LARGEST = 2**64 - 1


def fill(shared: SharedCounters, slot: int, listener: int, value: int) -> None:
    words = shared.memory(slot, listener).cast("Q")
    for index in range(len(words)):
        words[index] = value


def test_shared_counters_new_are_zero() -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for slot, listener in PAIRS:
        assert not any(any(shared.block(slot, listener).all(field)) for field in LAYOUT)
        assert (shared.queue(slot, listener).length, shared.queue(slot, listener).limit) == (0, 0)


def test_shared_counters_written_everywhere_do_not_overlap() -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for number, (slot, listener) in enumerate(PAIRS):
        fill(shared, slot, listener, number + 1)
        shared.queue(slot, listener).length = 100 + number
        shared.queue(slot, listener).limit = 200 + number
    processes = [*(shared.process(slot) for slot in range(SLOTS)), shared.admin]
    for number, process in enumerate(processes):
        process.pid, process.restarts, process.up, process.loop_lag_ns = (number * 4 + 300 + n for n in range(4))

    for number, (slot, listener) in enumerate(PAIRS):
        for field, (_, count) in LAYOUT.items():
            assert shared.block(slot, listener).all(field) == [number + 1] * count
        assert shared.queue(slot, listener).length == 100 + number
        assert shared.queue(slot, listener).limit == 200 + number
    for number, slot in enumerate(range(SLOTS + 1)):
        process = shared.process(slot)
        found = (process.pid, process.restarts, process.up, process.loop_lag_ns)
        assert found == tuple(number * 4 + 300 + n for n in range(4))


def test_block_memory_is_writable_and_aligned_to_cache_lines() -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for slot, listener in PAIRS:
        memory = shared.memory(slot, listener)
        assert (memory.nbytes, memory.itemsize, memory.readonly) == (BLOCK_SIZE, 1, False)
    assert BLOCK_SIZE % 64 == 0


@examples(50)
@given(st.lists(st.integers(0, 2**62), min_size=SLOTS, max_size=SLOTS))
def test_total_of_a_listener_is_the_sum_over_its_slots(values: list[int]) -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for slot, value in enumerate(values):
        fill(shared, slot, 1, value)
    for field, (_, count) in LAYOUT.items():
        assert shared.total(1).all(field) == [sum(values)] * count
        assert shared.total(0).all(field) == [0] * count


def test_shared_counters_written_by_a_child_are_read_by_its_parent() -> None:
    shared = SharedCounters(2, 1)
    child = os.fork()
    if child == 0:
        fill(shared, 1, 0, 42)
        shared.process(1).pid = os.getpid()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert shared.block(1, 0)["accepted"] == 42
    assert shared.process(1).pid == child
    assert shared.block(0, 0)["accepted"] == 0


def test_word_beyond_64_bits_raises_value_error() -> None:
    shared = SharedCounters(1, 1)
    shared.process(0).loop_lag_ns = LARGEST
    assert shared.process(0).loop_lag_ns == LARGEST
    for wrong in (LARGEST + 1, -1):
        with pytest.raises(ValueError, match="format"):
            shared.process(0).loop_lag_ns = wrong


def test_settle_after_a_worker_died_counts_its_sessions_as_crashed() -> None:
    counters = SharedCounters(1, 1, upstreams=1)
    block = counters.relay_block(0, 0)
    for number, (opened, ended) in enumerate([(5, 2), (9, 1)], 1):  # a successor dies too
        block.put("opened", opened)
        block.put("ends", number * ended, ENDS.index("client"))
        block.put("open", opened - number * ended)
        counters.settle(0)
        assert sum(block.all("ends")) == opened
        assert block["open"] == 0
    assert block.all("ends")[ENDS.index("crashed")] == 7
