"""Lists of networks: what was compiled says of every address what the lists say."""

import ipaddress
import os
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol._fastpath import Networks
from flashpol.config import Network
from flashpol.serving.networks import compile_networks

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def packed(ip: IP) -> bytes:
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def allowed(networks: Networks, ip: IP) -> bool:
    return bool(networks.allow(packed(ip)))


def model(ip: IP, allow: Iterable[Network], deny: Iterable[Network]) -> bool:
    """By definition: the smallest network that contains it decides; in none, whether any are listed as allowed."""
    rules = dict.fromkeys(allow, True) | dict.fromkeys(deny, False)
    around = [network for network in rules if ip in network]
    return rules[max(around, key=lambda network: network.prefixlen)] if around else not allow


def network_of(ip: IP, prefix: int) -> Network:
    return ipaddress.ip_network((ip, min(prefix, ip.max_prefixlen)), strict=False)


# Few distinct addresses and all prefixes, so that networks lie in and beside each other.
near = st.one_of(
    st.builds(lambda n: ipaddress.IPv4Address(0xC0000200 + n), st.integers(0, 40)),
    st.builds(lambda n: ipaddress.IPv6Address((0x20010DB8 << 96) + n), st.integers(0, 40)),
    st.sampled_from([ipaddress.ip_address(text) for text in ("0.0.0.0", "255.255.255.255", "::", "::1", "ff::")]),
)
addresses = st.one_of(
    near,
    st.ip_addresses(v=4),
    st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None),  # type: ignore[attr-defined]
)
networks = st.builds(network_of, addresses, st.one_of(st.integers(0, 32), st.integers(0, 128)))
lists = st.lists(networks, max_size=12)
EVERYTHING = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]


@example([], EVERYTHING, [])
@example(EVERYTHING, [], [])
@given(lists, lists, st.lists(addresses, max_size=10))
def test_compile_networks_longest_prefix_decides(allow: list[Network], deny: list[Network], others: list[IP]) -> None:
    compiled = compile_networks(allow, deny)
    edges = [end for network in (*allow, *deny) for end in (network[0], network[-1])]
    beside = [
        ip + step for ip in edges for step in (-1, 1)
        if 0 <= int(ip) + step < 1 << ip.max_prefixlen and getattr(ip + step, "ipv4_mapped", None) is None
    ]  # fmt: skip
    for ip in (*edges, *beside, *others):
        if getattr(ip, "ipv4_mapped", None) is None:
            assert allowed(compiled, ip) == model(ip, allow, deny), ip


def test_compile_networks_of_many_networks_matches_each() -> None:
    """As many as an index and a search are for: every second /24, of 10,000."""
    deny = [ipaddress.IPv4Network((n << 9, 24)) for n in range(10_000)]
    compiled = compile_networks((), deny)
    inside = b"".join(packed(network[7]) for network in deny)
    between = b"".join(packed(network[-1] + 1) for network in deny)
    assert compiled.allow(inside) == 0
    assert compiled.allow(between) == len(deny)


def test_compile_networks_ipv4_mapped_address_is_ipv4() -> None:
    compiled = compile_networks([ipaddress.ip_network("::/0")])
    assert allowed(compiled, ipaddress.ip_address("2001:db8::1"))
    assert not allowed(compiled, ipaddress.ip_address("192.0.2.1"))


@pytest.mark.parametrize("turns", [[2, 1], [1, 1], [0], [1 << 128], [-1]])
def test_networks_of_boundaries_out_of_order_raises(turns: list[int]) -> None:
    for arguments in (((True, turns), (True, [])), ((True, []), (True, turns))):
        with pytest.raises(ValueError, match="ascending"):
            Networks(*arguments)


def test_networks_allow_with_part_of_an_address_raises() -> None:
    with pytest.raises(ValueError, match="16 bytes each"):
        compile_networks(EVERYTHING).allow(os.urandom(17))
