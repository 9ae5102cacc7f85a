"""The shared memory: where each word lies, who sees it, what adds up."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpol._fastpath import BLOCK_SIZE, LAYOUT
from flashpol.counters.shared import DRAINING, READY, STARTING, WORD, Block, ServerStatus, SharedCounters

SLOTS, LISTENERS = 3, 2
PAIRS = [(slot, listener) for slot in range(SLOTS) for listener in range(LISTENERS)]
LARGEST = 2**64 - 1


def fill(shared: SharedCounters, slot: int, listener: int, value: int) -> None:
    words = shared.memory(slot, listener).cast("Q")
    for index in range(len(words)):
        words[index] = value


def test_new_memory_is_zero() -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for slot, listener in PAIRS:
        assert not any(any(shared.block(slot, listener).all(field)) for field in LAYOUT)
        assert (shared.queue(slot, listener).length, shared.queue(slot, listener).limit) == (0, 0)
    assert (ServerStatus().state, ServerStatus().reload_error) == (STARTING, "")
    assert len({STARTING, READY, DRAINING}) == 3


def test_every_word_has_a_place_of_its_own() -> None:
    """What is written to any of them is read from that one, whatever is written to the others."""
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


def test_the_status_of_the_server() -> None:
    status = ServerStatus()
    status.state, status.reload_successful, status.reload_timestamp = READY, 1, LARGEST
    status.reloads_asked, status.reloads_answered, status.reload_error = 5, 4, "grün ist falsch"
    assert (status.state, status.reload_successful, status.reload_timestamp) == (READY, 1, LARGEST)
    assert (status.reloads_asked, status.reloads_answered, status.reload_error) == (5, 4, "grün ist falsch")
    status.reload_error = "x" * 5000
    assert status.reload_error == "x" * ServerStatus.TEXT_BYTES
    status.reload_error = ""
    assert (status.reload_error, status.reloads_answered) == ("", 4)


def test_the_error_of_a_reload_is_seen_by_a_process_that_was_there_before() -> None:
    status = ServerStatus()
    child = os.fork()
    if child == 0:
        status.reload_error = "line 3"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert status.reload_error == "line 3"


def test_a_block_is_whole_and_aligned_as_an_acceptor_wants_it() -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for slot, listener in PAIRS:
        memory = shared.memory(slot, listener)
        assert (memory.nbytes, memory.itemsize, memory.readonly) == (BLOCK_SIZE, 1, False)
    assert BLOCK_SIZE % 64 == 0


@pytest.mark.parametrize("field", LAYOUT)
def test_a_field_is_read_where_the_layout_says(field: str) -> None:
    shared = SharedCounters(1, 1)
    offset, count = LAYOUT[field]
    words = shared.memory(0, 0).cast("Q")
    for index in range(count):
        words[offset // WORD + index] = index + 7
    assert shared.block(0, 0).all(field) == [index + 7 for index in range(count)]
    assert shared.block(0, 0)[field] == 7
    assert all(not any(shared.block(0, 0).all(other)) for other in LAYOUT if other != field)


def test_replies_are_the_sum_of_the_histogram() -> None:
    shared = SharedCounters(1, 1)
    offset, count = LAYOUT["buckets"]
    words = shared.memory(0, 0).cast("Q")
    for index in range(count):
        words[offset // WORD + index] = 10**index
    assert shared.block(0, 0).replies == int("1" * count)


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(KeyError):
        SharedCounters(1, 1).block(0, 0)["no_such_field"]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**62), min_size=SLOTS, max_size=SLOTS))
def test_a_total_is_the_sum_over_the_slots_of_one_listener(values: list[int]) -> None:
    shared = SharedCounters(SLOTS, LISTENERS)
    for slot, value in enumerate(values):
        fill(shared, slot, 1, value)
    for field, (_, count) in LAYOUT.items():
        assert shared.total(1).all(field) == [sum(values)] * count
        assert shared.total(0).all(field) == [0] * count


def test_a_total_does_not_change_afterwards_and_a_block_does() -> None:
    shared = SharedCounters(1, 1)
    live, total = shared.block(0, 0), Block.total(iter([shared.block(0, 0)]))
    fill(shared, 0, 0, 5)
    assert (live["accepted"], total["accepted"]) == (5, 0)


def test_a_forked_process_writes_into_the_same_memory() -> None:
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


def test_a_word_takes_64_bits_and_no_more() -> None:
    shared = SharedCounters(1, 1)
    shared.process(0).loop_lag_ns = LARGEST
    assert shared.process(0).loop_lag_ns == LARGEST
    for wrong in (LARGEST + 1, -1):
        with pytest.raises(ValueError, match="format"):
            shared.process(0).loop_lag_ns = wrong
