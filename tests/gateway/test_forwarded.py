"""X-Forwarded-For: believed only from the proxies that the operator named, from the right end on."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.gateway.forwarded import client_address
from flashpol.serving.networks import compile_networks

PROXIES = compile_networks([ipaddress.ip_network(text) for text in ("10.0.0.0/8", "fd00::/8")])
PEER = "10.0.0.1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([b"192.0.2.1"], "192.0.2.1"),
        ([b"192.0.2.1, 10.0.0.2"], "192.0.2.1"),
        ([b"198.51.100.1, 192.0.2.1"], "192.0.2.1"),  # the client wrote the first one
        ([b"198.51.100.1, 192.0.2.1, 10.0.0.3,10.0.0.2"], "192.0.2.1"),
        ([b"198.51.100.1", b"192.0.2.1", b"10.0.0.2"], "192.0.2.1"),
        ([b"192.0.2.1", b"198.51.100.1"], "198.51.100.1"),
        ([b"10.0.0.9, 10.0.0.2"], "10.0.0.9"),  # all are proxies: a client among them
        ([b" \t192.0.2.1\t "], "192.0.2.1"),
        ([b"192.0.2.1:567"], "192.0.2.1"),
        ([b"[2001:db8::1]:443"], "2001:db8::1"),
        ([b"[2001:db8::1]"], "2001:db8::1"),
        ([b"2001:DB8:0:0::1"], "2001:db8::1"),
        ([b"2001:db8::1, fd00::2"], "2001:db8::1"),
        ([b"::ffff:192.0.2.1"], "192.0.2.1"),
        ([b"192.0.2.1, [::ffff:10.0.0.2]:80"], "192.0.2.1"),
        ([b"198.51.100.1, unknown, 192.0.2.1"], "192.0.2.1"),
    ],
)
def test_client_address_is_the_rightmost_that_is_no_proxy(fields: list[bytes], expected: str) -> None:
    assert client_address(PEER, fields, PROXIES) == (expected, True)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b" ",
        b"unknown",
        b"_hidden",
        b"localhost",
        b"192.0.2",
        b"192.0.2.01",
        b"192.0.2.256",
        b"192.0.2.1:",
        b"192.0.2.1:port",
        b"192.0.2.1:123456",
        b"192.0.2.1 192.0.2.2",
        b'"192.0.2.1"',
        b"for=192.0.2.1",
        b"[192.0.2.1]",
        b"[2001:db8::1",
        b"[2001:db8::1]443",
        b"2001:db8::1]",
        b"2001:db8:::1",
        b"fe80::1%eth0",
        b"1:2",
        b"192.0.2.1\0",
        b"192.0.2.\xb9",
        "192.0.2.１".encode(),
        b"1" * 8000,
    ],
)
def test_client_address_garbage_ends_the_reading_at_the_last_good(garbage: bytes) -> None:
    assert client_address(PEER, [b"198.51.100.1, " + garbage], PROXIES) == (PEER, False)
    assert client_address(PEER, [b"198.51.100.1, " + garbage + b", 10.0.0.2"], PROXIES) == ("10.0.0.2", True)


@pytest.mark.parametrize("peer", ["192.0.2.9", "2001:db8::9", "fe80::9%eth0"])
def test_client_address_of_an_unknown_peer_is_its_own(peer: str) -> None:
    expected = peer.partition("%")[0]
    assert client_address(peer, [b"198.51.100.1"], PROXIES) == (expected, False)
    assert client_address(peer, [b"198.51.100.1"], None) == (expected, False)
    assert client_address(peer, [], PROXIES) == (expected, False)


def test_client_address_mapped_peer_is_an_ipv4_proxy() -> None:
    assert client_address("::ffff:10.0.0.1", [b"192.0.2.1"], PROXIES) == ("192.0.2.1", True)
    assert client_address("::ffff:192.0.2.9", [b"198.51.100.1"], PROXIES) == ("192.0.2.9", False)


def test_client_address_reads_a_limited_number_of_entries() -> None:
    many = b",".join([b"192.0.2.1"] + [b"10.0.0.%d" % (n % 256) for n in range(40)])
    address, forwarded = client_address(PEER, [many], PROXIES)
    assert forwarded
    assert address == "10.0.0.8"  # the 32nd from the right


@given(st.lists(st.binary(max_size=60), max_size=4), st.ip_addresses())
def test_client_address_anything_left_of_the_client_changes_nothing(
    fields: list[bytes], client: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    last = str(client).partition("%")[0].encode()
    expected = client_address(PEER, [last], PROXIES)
    if not PROXIES.allow(ipaddress.IPv6Address(f"::ffff:{client}").packed if client.version == 4 else client.packed):
        assert client_address(PEER, [*fields, last], PROXIES) == expected
    assert expected.forwarded


@given(st.lists(st.binary(max_size=60), max_size=4))
def test_client_address_anything_gives_an_address(fields: list[bytes]) -> None:
    address, forwarded = client_address(PEER, fields, PROXIES)
    assert forwarded or address == PEER
    ipaddress.ip_address(address)
