"""The last origins that a WebSocket path refused, as text in shared memory."""

import random
from collections.abc import Sequence

import pytest

from flashpol.counters.refused_origins import (
    ENTRIES,
    ORIGIN_BYTES,
    REASON_BYTES,
    SIZE,
    RefusedOrigin,
    RefusedOrigins,
    merged,
)
from flashpol.counters.shared import SharedCounters


def make_ring() -> RefusedOrigins:
    return RefusedOrigins(memoryview(bytearray(SIZE)))


def origins(entries: Sequence[RefusedOrigin]) -> list[str]:
    return [each.origin for each in entries]


def test_record_of_a_refusal_is_read_as_it_was_written() -> None:
    ring = make_ring()
    assert list(ring.entries()) == []
    ring.record("https://evil.example", "no grant (line 3)", 3, now=1_700_000_000.25)
    assert list(ring.entries()) == [RefusedOrigin("https://evil.example", "no grant (line 3)", 3, 1, 1_700_000_000.25)]


def test_origin_that_is_refused_again_has_one_entry_with_its_last_reason() -> None:
    ring = make_ring()
    ring.record("null", "first", 3, now=10)
    ring.record("https://a.example", "another", None, now=11)
    ring.record("null", "second", None, now=12)
    assert merged([ring]) == [
        RefusedOrigin("null", "second", None, 2, 12),
        RefusedOrigin("https://a.example", "another", None, 1, 11),
    ]


def test_fifth_origin_replaces_the_one_that_was_refused_longest_ago() -> None:
    ring = make_ring()
    for number in range(ENTRIES):
        ring.record(f"https://{number}.example", "no", None, now=number + 1)
    ring.record("https://0.example", "no", None, now=50)
    ring.record("https://new.example", "no", None, now=51)
    expected = ["https://new.example", "https://0.example", "https://3.example", "https://2.example"]
    assert origins(merged([ring])) == expected
    assert [each.times for each in merged([ring])] == [1, 2, 1, 1]


def test_entry_that_is_being_written_is_left_out_until_it_is_whole() -> None:
    memory = memoryview(bytearray(SIZE))
    ring = RefusedOrigins(memory)
    ring.record("https://a.example", "no", None)
    memory[0] |= 1
    assert list(ring.entries()) == []
    ring.record("https://a.example", "no", None)  # its worker was killed in between, and this is the successor
    assert [(each.origin, each.times) for each in ring.entries()] == [("https://a.example", 2)]


def test_long_and_odd_texts_are_cut_and_stay_in_their_entry() -> None:
    ring = make_ring()
    ring.record("https://" + "a" * 600, "r" * 600, 2**40, now=1)
    ring.record("https://\u00e4.example\0\x1b[2J", "why\n\0", None, now=2)
    short, long = merged([ring])
    assert (len(long.origin), len(long.reason), long.line) == (ORIGIN_BYTES, REASON_BYTES, 2**40)
    assert short.origin == "https://?.example??[2J"
    assert short.reason == "why?"


def test_entries_of_several_workers_are_one_list_with_the_last_first() -> None:
    shared = SharedCounters(3, 1, 2, 2)
    shared.refused_origins(0, 1).record("https://a.example", "old", 1, now=10)
    shared.refused_origins(1, 1).record("https://a.example", "new", 2, now=30)
    shared.refused_origins(2, 1).record("https://b.example", "other", None, now=20)
    assert shared.last_refused(1) == [
        RefusedOrigin("https://a.example", "new", 2, 2, 30),
        RefusedOrigin("https://b.example", "other", None, 1, 20),
    ]
    assert shared.last_refused(0) == []
    for slot in range(3):  # what lies beside it is not touched
        assert not any(shared.path_memory(slot, 1))
        assert not any(shared.relay_memory(slot, 1))
        assert shared.process(slot).up == 0


@pytest.mark.parametrize("seed", range(5))
def test_garbage_in_the_memory_is_printable_text(seed: int) -> None:
    chance = random.Random(seed)
    memory = memoryview(bytearray(chance.randbytes(SIZE)))
    ring = RefusedOrigins(memory)
    for each in merged([ring]):
        assert each.origin.isprintable()
        assert each.reason.isprintable()
    ring.record("https://a.example", "no", None)
    assert "https://a.example" in origins(merged([ring]))
