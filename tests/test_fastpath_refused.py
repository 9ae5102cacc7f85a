"""Which addresses limits refuse: the table against a plain reference, and each limit with real connections."""

import ipaddress
import socket
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol._fastpath import TopAddresses
from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from flashpol.serving.networks import compile_networks
from testkit.clients import BARE, REQUEST, reset, until_end
from testkit.fastpath_loop import Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

SIZE = 16  # TOP_COUNT
LOOPBACK = compile_networks([ipaddress.ip_network("127.0.0.0/8")])
Start = Callable[..., Loop]


def packed(number: int, *, v6: bool = False) -> bytes:
    return (
        (0x20010DB8 << 96 | number).to_bytes(16, "big") if v6 else bytes(10) + b"\xff\xff" + number.to_bytes(4, "big")
    )


def text(address: bytes) -> str:
    ip = ipaddress.IPv6Address(address)
    return str(ip.ipv4_mapped or ip)


class Reference:
    """Space-saving over a dict, whose order is that of the entries."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[int, int]] = {}

    def count(self, address: bytes) -> None:
        if address in self.rows:
            count, error = self.rows[address]
            self.rows[address] = count + 1, error
        elif len(self.rows) < SIZE:
            self.rows[address] = 1, 0
        else:
            lowest = min(self.rows, key=lambda each: self.rows[each][0])
            count = self.rows[lowest][0]
            self.rows = {
                (address if each == lowest else each): ((count + 1, count) if each == lowest else row)
                for each, row in self.rows.items()
            }


# Some addresses that come often among many that come once; the same number in both families is two addresses.
streams = st.lists(
    st.tuples(st.integers(1, 12) | st.integers(1, 2**32 - 1), st.booleans()).map(lambda a: packed(a[0], v6=a[1])),
    max_size=300,
)


@given(streams)
def test_top_addresses_equal_the_reference(stream: list[bytes]) -> None:
    top, reference = TopAddresses(), Reference()
    top.count(b"".join(stream))
    for address in stream:
        reference.count(address)
    total, rows = top.take()
    assert total == len(stream)
    assert sorted(rows) == sorted((text(address), *row) for address, row in reference.rows.items())
    assert [count - error for _, count, error in rows] == sorted((c - e for _, c, e in rows), reverse=True)
    assert top.take() == (0, [])


@given(streams)
def test_top_addresses_have_every_heavy_one_with_bounds_of_its_count(stream: list[bytes]) -> None:
    top = TopAddresses()
    top.count(b"".join(stream))
    total, rows = top.take()
    true = Counter(map(text, stream))
    assert sum(count for _, count, _ in rows) == total
    assert all(count - error <= true[address] <= count for address, count, error in rows)
    assert {address for address, count in true.items() if count > total / SIZE} <= {address for address, _, _ in rows}
    if len(true) <= SIZE:
        assert {address: count for address, count, _ in rows} == true


def test_top_addresses_under_a_spray_keep_the_heavy_address() -> None:
    top = TopAddresses()
    for spray in range(10_000):
        top.count(packed(0x0A000000 + spray) + packed(1))
    _, [(address, count, error), *rest] = top.take()
    assert address == "0.0.0.1"
    assert 9_000 < count - error <= 10_000
    assert all(count - error < 10 for _, count, error in rest)


@pytest.mark.parametrize("size", [1, 15, 17])
def test_top_addresses_of_another_length_are_an_error(size: int) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        TopAddresses().count(bytes(size))


# ------------------------------------------------------------------------------------------------------- connections


def taken(loop: Loop) -> dict[str, tuple[int, dict[str, int]]]:
    """Reason -> total, and count of each address; then nothing is left."""
    table = loop.connection_table
    found = {}
    for listener, reason in table.refusals():
        total, rows = table.take_refusals(listener, reason)
        found[reason] = total, {address: count for address, count, _ in rows}
    assert table.refusals() == []
    return found


@pytest.fixture
def limited(start: Start) -> Callable[..., Loop]:
    def make(reply: bytes = REPLY, **limits: int) -> Loop:
        settings = ConnectionLimits(**{"max_address_connections": 0} | limits)
        return start(reply, address_limits=SharedAddressLimits(1, settings).of(0))

    return make


def refused(loop: Loop, source: str) -> None:
    with loop.connect(source=source) as client:
        assert until_end(client)[0] == b""


def test_max_address_connections_counts_the_refused_addresses(limited: Callable[..., Loop]) -> None:
    loop = limited(max_address_connections=1, reply=LARGE)
    slow = [loop.connect(2048, source=source) for source in ("127.0.0.2", "127.0.0.3")]
    with slow[0], slow[1]:
        for client in slow:  # a reply that is being sent does not give way
            loop.send(client, REQUEST)
        for _ in range(3):
            refused(loop, "127.0.0.2")
        refused(loop, "127.0.0.3")
        assert loop.connection_table.refusals() == [(0, "max_address_connections")]
        assert taken(loop) == {"max_address_connections": (4, {"127.0.0.2": 3, "127.0.0.3": 1})}
        refused(loop, "127.0.0.3")
        assert taken(loop) == {"max_address_connections": (1, {"127.0.0.3": 1})}


def test_max_address_rate_counts_the_refused_prefix(limited: Callable[..., Loop]) -> None:
    loop = limited(max_address_rate=1, ipv4_prefix=24)
    with loop.connect(source="127.0.0.2") as client:
        loop.send(client, REQUEST)
    refused(loop, "127.0.0.3")
    assert taken(loop) == {"max_address_rate": (1, {"127.0.0.0/24": 1})}


def test_max_connections_counts_the_evicted_address(limited: Callable[..., Loop]) -> None:
    loop = limited(max_connections=1)
    with loop.connect(source="127.0.0.2") as evicted, loop.connect(source="127.0.0.3") as client:
        assert until_end(evicted)[0] == b""
        loop.send(client, REQUEST)
        assert until_end(client)[0] == REPLY
    assert taken(loop) == {"max_connections": (1, {"127.0.0.2": 1})}


def test_max_connections_without_an_idle_connection_counts_the_new_address(limited: Callable[..., Loop]) -> None:
    loop = limited(LARGE, max_connections=1)
    with loop.connect(receive_buffer=2048) as slow:
        loop.send(slow, REQUEST)
        loop.until(lambda: loop.slow_replies)
        refused(loop, "127.0.0.3")
        assert taken(loop) == {"max_connections": (1, {"127.0.0.3": 1})}
        loop.connection_table.close_as(loop.slow_replies.pop(), "max_slow_replies")
        assert taken(loop) == {"max_slow_replies": (1, {"127.0.0.1": 1})}


def test_capacity_without_any_limit_counts_the_refused_address(start: Start) -> None:
    loop = start(capacity=1)
    refused(loop, "127.0.0.4")
    assert taken(loop) == {"capacity": (1, {"127.0.0.4": 1})}


def test_refused_client_that_has_reset_is_counted(start: Start) -> None:
    loop = start(capacity=1)
    reset(socket.create_connection(loop.address))
    loop.until(loop.connection_table.refusals)
    total, addresses = taken(loop)["capacity"]
    assert total == 1
    assert addresses in ({}, {"127.0.0.1": 1})


def test_limits_behind_a_proxy_count_the_address_in_the_header(start: Start) -> None:
    limits = SharedAddressLimits(1, ConnectionLimits(max_address_connections=1)).of(0)
    loop = start(LARGE, proxies=LOOPBACK, address_limits=limits)
    headers = [b"PROXY TCP4 192.0.2.1 192.0.2.9 7 843\r\n", b"PROXY TCP6 2001:db8::5:1 2001:db8::9 7 843\r\n"]
    holders = [loop.connect(2048) for _ in headers]
    for holder, header in zip(holders, headers, strict=True):
        loop.send(holder, header + REQUEST)
        with loop.connect() as client:
            loop.send(client, header + BARE)
            assert until_end(client)[0] == b""
    assert taken(loop) == {"max_address_connections": (2, {"192.0.2.1": 1, "2001:db8::/64": 1})}
    for holder in holders:
        holder.close()


def test_refusals_that_no_limit_made_are_not_counted(start: Start) -> None:
    loop = start(networks=compile_networks([ipaddress.ip_network("192.0.2.0/24")]))
    refused(loop, "127.0.0.2")
    with loop.connect():
        loop.connection_table.close_all()
    assert loop.connection_table.refusals() == []


def test_take_refusals_of_what_there_is_not_is_an_error_or_nothing(start: Start) -> None:
    table = start().connection_table
    assert table.take_refusals(0, "max_sessions") == (0, [])
    for listener, reason in ((1, "max_sessions"), (-1, "max_sessions"), (0, "nonsense")):
        with pytest.raises(ValueError, match=r"listener|not in"):
            table.take_refusals(listener, reason)


def test_connection_table_that_goes_away_frees_its_refused_addresses(start: Start) -> None:
    """Under the sanitizers a leak or a second free would end the run."""
    loop = start(capacity=1)
    refused(loop, "127.0.0.2")
    assert loop.connection_table.refusals()
