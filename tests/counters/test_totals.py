"""Totals over all generations."""

from hypothesis import given
from hypothesis import strategies as st

from flashpol._fastpath import LAYOUT
from flashpol.counters.layout import TUNNEL_GAUGES, WORD, TunnelBlock
from flashpol.counters.shared import SharedCounters
from flashpol.counters.totals import CounterTotals
from testkit.examples import examples

NAMES = ("a", "b", "c")
GENERATIONS = st.lists(
    st.tuples(st.permutations(NAMES).flatmap(lambda p: st.sampled_from([p, p[:1], p[:2]])), st.integers(1, 3)),
    min_size=1, max_size=5,
)  # fmt: skip


def count(shared: SharedCounters, slot: int, listener: int, number: int) -> None:
    shared.memory(slot, listener).cast("Q")[LAYOUT["accepted"][0] // WORD] += number


@examples(100)
@given(GENERATIONS, st.data())
def test_totals_after_generations_end_in_any_order_keep_every_count(
    generations: list[tuple[list[str], int]], data: st.DataObject
) -> None:
    totals, truth, restarts = CounterTotals(), dict.fromkeys(NAMES, 0), [0, 0, 0]
    opened = []
    for names, slots in generations:
        shared = SharedCounters(slots, len(names))
        totals.open(names, shared)
        opened.append(shared)
        for slot in range(slots):
            deaths = data.draw(st.integers(0, 5))
            shared.process(slot).restarts = deaths
            restarts[slot] += deaths
            for listener, name in enumerate(names):
                number = data.draw(st.integers(0, 2**40))
                count(shared, slot, listener, number)
                truth[name] += number
    for shared in [*data.draw(st.permutations(opened)), None]:
        assert {name: totals.total(name)["accepted"] for name in NAMES} == truth
        assert [totals.restarts(slot) for slot in range(3)] == restarts
        if shared:
            totals.close(shared)


def test_totals_after_a_reload_carry_the_counters_of_tls_and_no_gauges_of_ended_workers() -> None:
    totals, old, new = CounterTotals(), SharedCounters(2, 1), SharedCounters(1, 1)
    fields = (
        "handshakes",
        "resumed",
        "handshake_failures",
        "unknown_names",
        "truncated",
        "handshake_ns",
        "handshake_buckets",
    )
    for shared in (old, new):
        totals.open(["a"], shared)
        for slot in range(shared.slots):
            for field in (*fields, "tls", "handshaking"):
                for index in range(LAYOUT[field][1]):
                    shared.block(slot, 0).put(field, 7 + index, index)
    for slot in range(old.slots):
        old.settle(slot)  # as the arbiter does once a worker has ended
    totals.close(old)
    for field in fields:
        assert totals.total("a").all(field) == [3 * (7 + index) for index in range(LAYOUT[field][1])], field
    assert (totals.total("a")["tls"], totals.total("a")["handshaking"]) == (7, 7)


def test_totals_after_a_reload_carry_the_counters_of_tunnels_and_no_gauges_of_ended_workers() -> None:
    """The listener moves to another place in the configuration, and another one has tunnel sessions too."""
    totals, old, new = CounterTotals(), SharedCounters(2, 1, tunnels=1), SharedCounters(1, 2, tunnels=2)
    for shared, names in ((old, ["a"]), (new, ["b", "a"])):
        totals.open(names, shared, tunnels=names)
        for slot in range(shared.slots):
            for field, (_, words) in TunnelBlock.LAYOUT.items():
                for index in range(words):
                    shared.tunnel_block(slot, names.index("a")).put(field, 7 + index, index)
    counters = TunnelBlock.LAYOUT.keys() - TUNNEL_GAUGES
    before = {field: totals.tunnels("a").all(field) for field in counters}
    assert before["sessions"] == [21]
    for slot in range(old.slots):
        block = old.tunnel_block(slot, 0)
        block.put("sessions", sum(block.all("ends")))  # all have ended
        old.settle(slot)  # as the arbiter does once a worker has ended
    ended = totals.tunnels("a")["sessions"]
    totals.close(old)
    after = {field: totals.tunnels("a").all(field) for field in counters}
    assert after == before | {"sessions": [ended]}
    assert [totals.tunnels("a")[field] for field in TUNNEL_GAUGES] == [7] * len(TUNNEL_GAUGES)
    assert not any(any(totals.tunnels("b").all(field)) for field in TunnelBlock.LAYOUT)


def test_total_of_an_unknown_listener_is_zero() -> None:
    total = CounterTotals().total("unknown")
    assert not any(any(total.all(field)) for field in LAYOUT)
    assert total.replies == 0


def test_draining_workers_are_the_processes_of_other_generations() -> None:
    totals, old, new = CounterTotals(), SharedCounters(2, 1), SharedCounters(2, 1)
    for shared in (old, new):
        totals.open(["a"], shared)
        shared.process(0).pid = shared.process(1).pid = 4711
        shared.admin.pid = 4712
    assert totals.draining_workers(new) == 2
    old.process(0).pid = 0
    assert totals.draining_workers(new) == 1
    totals.close(old)
    assert totals.draining_workers(new) == 0
