"""Limits in total, of a worker and of an address; and what a spray of addresses can and cannot do."""

import ipaddress
import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol._fastpath import ADDRESS_TABLE_HEAD, ADDRESS_TABLE_SET, AddressLimits
from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits, SharedCounters
from flashpol.serving.networks import compile_networks
from testkit.clients import BARE, REQUEST, until_end
from testkit.fastpath_loop import Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

SECOND = 1_000_000_000
WAYS = 8
Start = Callable[..., Loop]


def packed(text: str) -> bytes:
    ip = ipaddress.ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def many(count: int, first: int = 0x0A000000) -> Iterator[bytes]:
    """Addresses of IPv4."""
    return (bytes(10) + b"\xff\xff" + number.to_bytes(4, "big") for number in range(first, first + count))


def alone(**connection_limits: int) -> AddressLimits:
    return SharedAddressLimits(1, ConnectionLimits(**{"max_address_connections": 0} | connection_limits)).of(0)


# --------------------------------------------------------------------------------------------------------- one address


def test_admit_over_max_address_connections_is_refused() -> None:
    address_limits = alone(max_address_connections=3)
    one, other = packed("192.0.2.1"), packed("192.0.2.2")
    slots = [address_limits.admit(one, 0) for _ in range(3)]
    assert [verdict for verdict, _ in slots] == ["admitted"] * 3
    assert address_limits.admit(one, 0) == ("max_address_connections", 0)
    assert address_limits.admit(other, 0)[0] == "admitted"
    address_limits.release(slots[0][1])
    assert address_limits.admit(one, 0)[0] == "admitted"
    assert address_limits.tracked == 4


def test_admit_over_max_address_rate_is_refused_in_a_sliding_second() -> None:
    """The second slides: connections of the previous one count by the part of it that is left."""
    address_limits = alone(max_address_rate=10)
    one = packed("192.0.2.1")

    def admitted(at: float) -> int:
        count = 0
        while (answer := address_limits.admit(one, int(at * SECOND)))[0] == "admitted":
            address_limits.release(answer[1])
            count += 1
        assert answer == ("max_address_rate", 0)
        return count

    assert [admitted(at) for at in (100.0, 100.9, 101.0, 101.5, 101.9, 102.0, 110.0)] == [10, 0, 0, 5, 4, 1, 10]


@given(st.lists(st.floats(0, 5), max_size=200).map(sorted), st.integers(1, 20))
def test_admit_allows_at_most_twice_the_rate_in_any_second(times: list[float], rate: int) -> None:
    address_limits = alone(max_address_rate=rate)
    admitted = []
    for at in times:
        verdict, slot = address_limits.admit(packed("192.0.2.1"), int(at * SECOND))
        if verdict == "admitted":
            address_limits.release(slot)
            admitted.append(at)
    for start in admitted:
        assert sum(start <= at < start + 1 for at in admitted) <= 2 * rate
    assert not times or admitted


@pytest.mark.parametrize(
    ("connection_limits", "one", "other", "same"),
    [
        ({}, "192.0.2.1", "192.0.2.2", False),
        ({}, "2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ({}, "2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ({"ipv4_prefix": 24}, "192.0.2.1", "192.0.2.255", True),
        ({"ipv4_prefix": 24}, "192.0.2.1", "192.0.3.1", False),
        ({"ipv6_prefix": 128}, "2001:db8::1", "2001:db8::2", False),
        ({"ipv6_prefix": 48}, "2001:db8:0:1::", "2001:db8:0:ffff::", True),
        ({"ipv6_prefix": 48}, "2001:db8:0::", "2001:db8:1::", False),
        ({"ipv6_prefix": 72}, "2001:db8:0:1:ff00::", "2001:db8:0:1:ffff::", True),
        ({"ipv6_prefix": 72}, "2001:db8:0:1:ff00::", "2001:db8:0:1:fe00::", False),
    ],
)
def test_prefix_lengths_decide_what_counts_as_one_address(
    connection_limits: dict[str, int], one: str, other: str, same: bool
) -> None:
    address_limits = alone(max_address_connections=1, **connection_limits)
    assert address_limits.admit(packed(one), 0)[0] == "admitted"
    assert address_limits.admit(packed(other), 0)[0] == ("max_address_connections" if same else "admitted")


# ------------------------------------------------------------------------------------------------------------ a spray


def test_address_table_under_a_spray_keeps_the_addresses_at_their_limit() -> None:
    """A million addresses come and go; the two that were at a limit before still are."""
    address_limits = alone(max_address_connections=5, max_address_rate=10, address_table_size=1024)
    heavy = packed("192.0.2.1")
    for _ in range(5):
        assert address_limits.admit(heavy, SECOND)[0] == "admitted"
    fast = packed("192.0.2.2")
    for _ in range(10):
        address_limits.release(address_limits.admit(fast, SECOND)[1])
    seen = {"admitted": 0}
    for address in many(1_000_000):
        verdict, slot = address_limits.admit(address, SECOND)
        seen[verdict] = seen.get(verdict, 0) + 1
        if slot:
            address_limits.release(slot)
    assert seen == {"admitted": 1_000_000}
    assert address_limits.admit(heavy, SECOND) == ("max_address_connections", 0)
    assert address_limits.admit(fast, SECOND) == ("max_address_rate", 0)
    assert address_limits.tracked == 5


def test_address_table_when_full_admits_untracked() -> None:
    address_limits = alone(max_address_connections=2, address_table_size=64)
    verdicts = [address_limits.admit(address, 0) for address in many(10_000)]
    assert sum(slot > 0 for _, slot in verdicts) == address_limits.tracked == 64
    assert {verdict for verdict, _ in verdicts} == {"admitted", "untracked"}
    assert address_limits.admit(packed("192.0.2.1"), 0) == ("untracked", 0)
    for _, slot in verdicts:
        if slot:
            address_limits.release(slot)
    assert address_limits.admit(packed("192.0.2.1"), 0)[0] == "admitted"


def test_address_table_set_evicts_the_idle_address_with_the_lowest_rate() -> None:
    """Of the addresses without connections, the one with the fewest in the last seconds."""
    address_limits = AddressLimits(
        aligned(ADDRESS_TABLE_HEAD + ADDRESS_TABLE_SET), worker=0, workers=1, sets=1, key=bytes(16), max_address_rate=3
    )
    addresses = list(many(WAYS + 1))
    for address in addresses[:WAYS]:
        for _ in range(1 if address == addresses[3] else 3):
            address_limits.release(address_limits.admit(address, 0)[1])
    address_limits.release(address_limits.admit(addresses[WAYS], 0)[1])  # takes the slot of the fourth
    for address in addresses[:WAYS]:
        expected = "admitted" if address == addresses[3] else "max_address_rate"
        verdict, slot = address_limits.admit(address, 0)
        assert verdict == expected
        if slot:
            address_limits.release(slot)


def test_address_table_key_decides_which_addresses_share_a_set() -> None:
    """Two addresses may share a set under one key and not under another: the address alone does not select the set."""

    def crowded() -> set[bytes]:
        address_limits = alone(max_address_connections=1, address_table_size=64)
        return {address for address in many(200) if address_limits.admit(address, 0)[0] == "untracked"}

    assert crowded() != crowded()


# ---------------------------------------------------------------------------------------------------- several workers


def test_admit_counts_the_connections_of_all_workers() -> None:
    """No client is refused below the limit. At the limit, a worker refuses that has its part of it."""
    shared = SharedAddressLimits(4, ConnectionLimits(max_address_connections=8, max_address_rate=0))
    workers = [shared.of(slot) for slot in range(4)]
    one = packed("192.0.2.1")
    held = [(worker, worker.admit(one, 0)) for worker in workers for _ in range(2)]
    assert all(verdict == "admitted" for _, (verdict, _) in held)
    assert [worker.admit(one, 0)[0] for worker in workers] == ["max_address_connections"] * 4
    worker, (_, slot) = held[0]
    worker.release(slot)
    assert workers[1].admit(one, 0)[0] == "admitted"
    assert workers[2].admit(one, 0)[0] == "max_address_connections"


def test_admit_at_one_worker_leaves_the_others_their_part_of_the_limit() -> None:
    shared = SharedAddressLimits(4, ConnectionLimits(max_address_connections=8))
    workers = [shared.of(slot) for slot in range(4)]
    one = packed("192.0.2.1")
    admitted = [sum(worker.admit(one, 0)[0] == "admitted" for _ in range(20)) for worker in workers]
    assert admitted == [8, 2, 2, 2]  # each its part of the limit, above the limit: less than twice it


def test_admit_counts_the_rate_of_all_workers() -> None:
    shared = SharedAddressLimits(2, ConnectionLimits(max_address_connections=0, max_address_rate=10))
    one, other = (shared.of(slot) for slot in range(2))
    for worker in (one, other):
        assert [worker.admit(packed("192.0.2.1"), 0)[0] for _ in range(5)] == ["admitted"] * 5
        assert worker.admit(packed("192.0.2.1"), 0)[0] == ("admitted" if worker is one else "max_address_rate")


def test_address_table_of_a_dead_worker_is_cleared() -> None:
    counters = SharedCounters(2, 1, connection_limits=ConnectionLimits(max_address_connections=2))
    dead, living = (counters.address_limits.of(slot) for slot in range(2))
    one = packed("192.0.2.1")
    assert [living.admit(one, 0)[0] for _ in range(1)] == ["admitted"]
    assert [dead.admit(one, 0)[0] for _ in range(1)] == ["admitted"]
    assert living.admit(one, 0)[0] == "max_address_connections"
    counters.settle(0)
    assert (dead.tracked, living.tracked) == (0, 1)
    assert living.admit(one, 0)[0] == "admitted"


# --------------------------------------------------------------------------------------------------- the whole path


def test_acceptor_at_an_address_limit_evicts_a_silent_connection_of_the_address(start: Start) -> None:
    loop = start(address_limits=alone(max_address_connections=3), request_timeout=30)
    other = loop.connect(source="127.0.0.2")
    held = [loop.connect(source="127.0.0.1") for _ in range(3)]
    for _ in range(2):
        with loop.connect(source="127.0.0.1") as client:
            loop.send(client, REQUEST)
            assert until_end(client) == (REPLY, "fin")
    assert until_end(held[0])[0] == b""  # evicted for the first of the two; the second found a place
    loop.send(other, REQUEST)
    assert until_end(other) == (REPLY, "fin")
    for client in (*held, other):
        client.close()
    assert loop.settle() == {"reply": 3, "max_address_connections": 1, "reset": 2}


def test_acceptor_at_an_address_limit_refuses_when_none_of_the_address_waits(start: Start) -> None:
    """The address has a slow reply only, which is being sent. Silent connections of others are not evicted for it."""
    loop = start(LARGE, address_limits=alone(max_address_connections=1), request_timeout=30)
    with loop.connect(2048, source="127.0.0.1") as slow, loop.connect(source="127.0.0.2") as other:
        loop.send(slow, REQUEST)
        assert loop.counters["slow_replies"] == 1
        with loop.connect(source="127.0.0.1") as refused:
            assert until_end(refused)[0] == b""
        assert loop.counters["parked"] == 1
        other.close()
    loop.connection_table.close_as(loop.slow_replies[0], "timeout")
    assert loop.settle() == {"timeout": 1, "max_address_connections": 1, "reset": 1}


def test_sessions_do_not_count_for_max_address_connections(start: Start) -> None:
    loop = start(address_limits=alone(max_address_connections=1), shared=True)
    with loop.connect() as one:
        loop.send(one, b"hello")
        other = loop.connect()
        loop.send(other, b"hello")
        other.close()
        assert [data for _, data in loop.sessions] == [b"hello"] * 2
        for fd, _ in loop.sessions:
            loop.connection_table.close_relayed(fd, 0)
    assert loop.settle() == {"relayed": 2}


def test_max_address_sessions_limits_the_sessions_of_an_address(start: Start) -> None:
    loop = start(address_limits=alone(max_address_sessions=2), shared=True)
    clients = [loop.connect(source="127.0.0.1") for _ in range(3)]
    clients += [loop.connect(source="127.0.0.2")]
    for client in clients:
        loop.send(client, b"hello")
    assert len(loop.sessions) == 3
    assert until_end(clients[2])[0] == b""
    loop.connection_table.close_relayed(loop.sessions.pop(0)[0], 0)
    with loop.connect(source="127.0.0.1") as again:
        loop.send(again, b"hello")
        assert len(loop.sessions) == 3
    for fd, _ in loop.sessions:
        loop.connection_table.close_relayed(fd, 0)
    for client in clients:
        client.close()
    assert loop.settle() == {"relayed": 4, "max_address_sessions": 1}


def test_max_address_sessions_counts_those_of_the_other_workers(start: Start) -> None:
    """A worker with less than its part, the limit divided by the workers, decides alone."""
    shared = SharedAddressLimits(2, ConnectionLimits(max_address_sessions=3))
    one, other = (start(address_limits=shared.of(slot), shared=True) for slot in range(2))
    clients = [(loop, loop.connect()) for loop in (one, one, one, other, other, one)]
    for loop, client in clients:
        loop.send(client, b"hello")
    assert (len(one.sessions), len(other.sessions)) == (3, 1)
    assert (one.counters["open"], other.counters["open"]) == (3, 1)
    for _, client in clients:
        client.close()


def test_exempt_networks_have_no_limit_by_address(start: Start) -> None:
    exempt = compile_networks([ipaddress.ip_network("127.0.0.8/29")])
    limits = ConnectionLimits(max_address_connections=1, max_address_rate=1, max_address_sessions=1)
    loop = start(address_limits=SharedAddressLimits(1, limits).of(0, exempt), shared=True)
    clients = [loop.connect(source="127.0.0.9") for _ in range(4)]
    assert loop.counters["open"] == 4
    for client in clients:
        loop.send(client, b"hello")
    assert len(loop.sessions) == 4
    others = [loop.connect(source="127.0.0.1") for _ in range(2)]
    assert loop.counters["open"] == 5
    for fd, _ in loop.sessions:
        loop.connection_table.close_relayed(fd, 0)
    for client in (*clients, *others):
        client.close()
    assert loop.settle() == {"relayed": 4, "max_address_rate": 1, "reset": 1}


def test_acceptor_refuses_an_address_over_its_rate(start: Start) -> None:
    loop = start(address_limits=alone(max_address_rate=1))
    for _ in range(20):
        with loop.connect(source="127.0.0.3") as client:
            if loop.counters["open"]:
                loop.send(client, REQUEST)
    ended = loop.settle()
    assert ended["reply"] >= 1
    assert ended["max_address_rate"] >= 1
    assert ended["reply"] + ended["max_address_rate"] == 20


LIMITS = pytest.mark.parametrize("limit", ["max_connections", "max_worker_connections"])


@LIMITS
def test_acceptor_at_the_total_refuses_when_none_gives_way(start: Start, limit: str) -> None:
    """Three sessions whose clients have spoken, and a reply that is being sent."""
    loop = start(LARGE, address_limits=alone(**{limit: 4}), shared=True)
    held = [loop.connect(2048) for _ in range(4)]
    for client, data in zip(held, [b"hello"] * 3 + [REQUEST], strict=True):
        loop.send(client, data)
    assert (loop.counters["sessions"], loop.counters["slow_replies"]) == (3, 1)
    for _ in range(3):
        with loop.connect() as refused:
            assert until_end(refused)[0] == b""
    for fd, _ in loop.sessions:
        loop.connection_table.close_relayed(fd, 0)
    loop.connection_table.close_as(loop.slow_replies[0], "timeout")
    for client in held:
        client.close()
    assert loop.settle() == {"relayed": 3, "timeout": 1, "max_connections": 3}


@LIMITS
def test_acceptor_at_the_total_answers_a_request_without_its_terminator(start: Start, limit: str) -> None:
    """Connections that have sent the 22 bytes give way by getting their reply."""
    loop = start(address_limits=alone(**{limit: 4}), terminator_grace=30)
    held = [loop.connect() for _ in range(4)]
    for client in held:
        loop.send(client, BARE)
    for _ in range(8):
        with loop.connect() as client:
            loop.send(client, REQUEST)
            assert until_end(client) == (REPLY, "fin")
    assert until_end(held[0]) == (REPLY, "fin")
    for client in held[1:]:
        loop.send(client, b"\0")
        assert until_end(client) == (REPLY, "fin")
    assert loop.settle() == {"reply": 12}


@LIMITS
def test_acceptor_at_the_total_evicts_the_oldest_silent_connection(start: Start, limit: str) -> None:
    loop = start(address_limits=alone(**{limit: 4}), request_timeout=30)
    silent = [loop.connect() for _ in range(4)]
    for _ in range(3):
        with loop.connect() as client:
            loop.send(client, REQUEST)
            assert until_end(client) == (REPLY, "fin")
    assert until_end(silent[0])[0] == b""  # evicted for the first of the three; the others needed no eviction
    assert loop.counters["open"] == 3
    for client in silent:
        client.close()
    assert loop.settle() == {"reply": 3, "max_connections": 1, "reset": 3}


def test_acceptor_evicts_nothing_for_a_client_that_is_refused(start: Start) -> None:
    limits = alone(max_connections=2, max_address_connections=1)
    loop = start(LARGE, address_limits=limits, request_timeout=30)
    with loop.connect(2048, source="127.0.0.1") as slow, loop.connect(source="127.0.0.2"):
        loop.send(slow, REQUEST)
        with loop.connect(source="127.0.0.1") as refused:
            assert until_end(refused)[0] == b""
        assert loop.counters["open"] == 2
    loop.connection_table.close_as(loop.slow_replies[0], "timeout")
    assert loop.settle() == {"max_address_connections": 1, "reset": 1, "timeout": 1}


def test_client_refused_for_the_total_releases_its_slot(start: Start) -> None:
    """The client was admitted by its address, and refused for the total."""
    loop = start(address_limits=alone(max_connections=1, max_address_connections=1), shared=True)
    with loop.connect(source="127.0.0.1") as inside:
        loop.send(inside, b"hello")
        for _ in range(2):
            with loop.connect(source="127.0.0.2") as refused:
                assert until_end(refused)[0] == b""
        loop.connection_table.close_relayed(loop.sessions[0][0], 0)
    assert loop.settle() == {"max_connections": 2, "relayed": 1}


def test_acceptor_counts_the_total_of_two_workers(start: Start) -> None:
    """The connections of each count for both, exactly, as long as they accept one at a time."""
    shared = SharedAddressLimits(2, ConnectionLimits(max_connections=6, max_worker_connections=5))
    one, other = (start(address_limits=shared.of(slot), request_timeout=30) for slot in range(2))
    held = [(loop, loop.connect()) for loop in (one, one, one, one, one, other)]
    for loop, number in ((one, 0), (other, 5)):  # the worker's limit, the total
        held.append((loop, loop.connect()))
        assert until_end(held[number][1])[0] == b""
    for loop, client in (held[1], held[-1]):
        loop.send(client, REQUEST)
        assert until_end(client) == (REPLY, "fin")
    for _, client in held:
        client.close()
    assert one.settle() == {"max_connections": 1, "reply": 1, "reset": 4}
    assert other.settle() == {"max_connections": 1, "reply": 1}


def test_burst_of_connections_stays_within_the_total(start: Start) -> None:
    """All waiting connections are accepted in one wake-up."""
    loop = start(address_limits=alone(max_connections=50), request_timeout=30)
    clients = [socket.create_connection(loop.address) for _ in range(120)]
    loop.until(lambda: loop.counters["accepted"] == 120)
    assert loop.counters["open"] == 50
    for client in clients:
        client.close()
    assert loop.settle() == {"max_connections": 70, "reset": 50}


def test_acceptor_refuses_a_denied_network(start: Start) -> None:
    loop = start(networks=compile_networks([], [ipaddress.ip_network("127.0.0.8/29")]))
    for last, served in ((7, True), (8, False), (15, False), (16, True)):
        with loop.connect(source=f"127.0.0.{last}") as client:
            if served:
                loop.send(client, REQUEST)
            assert until_end(client)[0] == (REPLY if served else b"")
    assert loop.settle() == {"reply": 2, "network": 2}


def test_untracked_connections_are_counted(start: Start) -> None:
    address_limits = AddressLimits(
        aligned(ADDRESS_TABLE_HEAD + ADDRESS_TABLE_SET),
        worker=0,
        workers=1,
        sets=1,
        key=bytes(16),
        max_address_connections=1,
    )
    loop = start(address_limits=address_limits, request_timeout=30)
    clients = [loop.connect(source=f"127.0.1.{n}") for n in range(1, 12)]
    assert loop.counters["untracked"] == 3
    assert (address_limits.held, address_limits.tracked) == (11, 8)
    for client in clients:
        client.close()
    assert loop.settle() == {"reset": 11}


def test_clients_during_a_spray_of_connections_are_served(start: Start) -> None:
    """2,000 addresses keep one connection each; a client of another address gets a reply each time."""
    loop = start(address_limits=alone(max_address_connections=2, address_table_size=256), request_timeout=60)
    spray = []
    for number in range(2000):
        client = socket.socket()
        client.bind((f"127.1.{number // 250}.{number % 250 + 1}", 0))
        client.connect(loop.address)
        spray.append(client)
        if number % 100 == 0:
            with loop.connect(source="127.0.0.1") as good:
                loop.send(good, REQUEST)
                assert until_end(good) == (REPLY, "fin")
    loop.until(lambda: loop.counters["accepted"] == 2020)
    assert loop.counters["open"] == 2000
    for client in spray:
        client.close()
    assert loop.settle() == {"reply": 20, "reset": 2000}


# --------------------------------------------------------------------------------------------------------- arguments


def aligned(size: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size))[:size]


@pytest.mark.parametrize(
    "wrong",
    [
        {"worker": 1}, {"worker": -1}, {"workers": 0}, {"key": b"short"}, {"ipv4_prefix": 33}, {"ipv6_prefix": 129},
        {"ipv6_prefix": -1}, {"max_connections": -1},
        {"max_address_connections": 1 << 16}, {"max_address_rate": 1 << 16},
        {"workers": 3}, {"memory": aligned(ADDRESS_TABLE_HEAD)},
        {"memory": aligned(ADDRESS_TABLE_HEAD + 3 * ADDRESS_TABLE_SET), "sets": 3}, {"sets": 0}, {"sets": 2},
        {"sets": 1 << 60},
        {"memory": aligned(ADDRESS_TABLE_HEAD + ADDRESS_TABLE_SET + 1)},
        {"memory": aligned(100 + ADDRESS_TABLE_SET)[8:]},
    ],
    ids=lambda wrong: " ".join(f"{name} {getattr(value, 'nbytes', value)}" for name, value in wrong.items()),
)  # fmt: skip
def test_address_limits_refuses_wrong_arguments(wrong: dict[str, object]) -> None:
    right = {
        "memory": aligned(ADDRESS_TABLE_HEAD + ADDRESS_TABLE_SET),
        "worker": 0,
        "workers": 1,
        "sets": 1,
        "key": os.urandom(16),
    }
    AddressLimits(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"one of the workers|from 0|can be counted|for each worker"):
        AddressLimits(**right | wrong)  # type: ignore[arg-type]


def test_release_of_an_empty_slot_is_an_error() -> None:
    address_limits = alone(max_address_connections=1)
    for wrong in (0, 1, 1 << 31):
        with pytest.raises(ValueError, match="has no connection"):
            address_limits.release(wrong)
    with pytest.raises(ValueError, match="16 bytes"):
        address_limits.admit(b"192.0.2.1", time.monotonic_ns())
