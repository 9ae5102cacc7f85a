"""The PROXY protocol's header: compared with a definition, in any pieces, and before requests."""

import ipaddress
import socket
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol._fastpath import Networks, ProxyHeader, Verdict
from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from flashpol.serving.networks import compile_networks
from testkit.clients import BARE, REQUEST, until_end
from testkit.examples import examples
from testkit.fastpath_loop import Loop
from testkit.serving import LARGE, REPLY

MORE, MATCH, OTHER = Verdict.MORE, Verdict.MATCH, Verdict.OTHER
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
MOST_AFTER = 4096
thorough = examples(400)


class Said(NamedTuple):
    verdict: Verdict
    consumed: int = 0
    source: tuple[str, int] | None = None
    oversized: bool = False


def feed(pieces: list[bytes]) -> Said:
    header = ProxyHeader()
    verdict = MORE
    for piece in pieces:
        verdict = header.feed(piece)
    return Said(verdict, header.consumed, header.source, header.oversized)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


# ---------------------------------------------------------------------------------------------------- the definition


def model(data: bytes) -> Said:  # noqa: PLR0911 - one for each rule
    """What a whole stream is, by definition."""
    if data[:1] == b"\r":
        return binary(data)
    line, end, _ = data.partition(b"\n")
    if not end:
        if len(data) >= 107:
            return Said(OTHER, oversized=data.startswith(b"PROXY "))
        return Said(MORE if b"PROXY ".startswith(data[:6]) else OTHER, len(data) * b"PROXY ".startswith(data[:6]))
    if not line.startswith(b"PROXY ") or len(line) >= 107:
        return Said(OTHER, oversized=line.startswith(b"PROXY "))
    if not line.endswith(b"\r"):
        return Said(OTHER)
    size = len(line) + 1
    words = line[6:-1].split(b" ")
    if words[0] == b"UNKNOWN":
        return Said(MATCH, size)
    family = {b"TCP4": socket.AF_INET, b"TCP6": socket.AF_INET6}.get(words[0])
    if family is None or len(words) != 5:
        return Said(OTHER)
    try:
        source, _ = (socket.inet_pton(family, word.decode()) for word in words[1:3])
        if b"\0" in line:
            raise ValueError
        ports = [int(word) for word in words[3:5]]
        if any(word != str(port).encode() or port > 65535 for word, port in zip(words[3:5], ports, strict=True)):
            return Said(OTHER)
    except (ValueError, OSError):
        return Said(OTHER)
    return Said(MATCH, size, (text(family, source), ports[0]))


def text(family: int, source: bytes) -> str:
    """As the fast path reports it: an IPv4-mapped IPv6 address is its IPv4 address."""
    ip = ipaddress.ip_address(source)
    return str(getattr(ip, "ipv4_mapped", None) or socket.inet_ntop(family, source))


def binary(data: bytes) -> Said:  # noqa: PLR0911
    if not data.startswith(SIGNATURE):
        known = SIGNATURE.startswith(data)
        return Said(MORE if known else OTHER, len(data) * known)
    fixed = data[12:16]
    if fixed[:1] and fixed[0] not in (0x20, 0x21):
        return Said(OTHER)
    local = fixed[:1] == b"\x20"
    if not local and fixed[1:2] and fixed[1] not in (0, 1, 2, 0x10, 0x11, 0x12, 0x20, 0x21, 0x22, 0x30, 0x31, 0x32):
        return Said(OTHER)
    if len(fixed) < 4:
        return Said(MORE, len(data))
    rest = int.from_bytes(fixed[2:], "big")
    if rest > MOST_AFTER:
        return Said(OTHER, oversized=True)
    if not local and rest < {0: 0, 1: 12, 2: 36, 3: 216}[fixed[1] >> 4]:
        return Said(OTHER)
    if len(data) < 16 + rest:
        return Said(MORE, len(data))
    after = data[16 : 16 + rest]
    source = None
    if fixed[:2] == b"\x21\x11":
        source = (text(socket.AF_INET, after[:4]), int.from_bytes(after[8:10], "big"))
    elif fixed[:2] == b"\x21\x21":
        source = (text(socket.AF_INET6, after[:16]), int.from_bytes(after[32:34], "big"))
    return Said(MATCH, 16 + rest, source)


# ------------------------------------------------------------------------------------------------------------ streams


def v1(source: str = "192.0.2.1", port: int = 40000, family: str = "TCP4") -> bytes:
    other = "198.51.100.1" if family == "TCP4" else "2001:db8::843"
    return f"PROXY {family} {source} {other} {port} 843\r\n".encode()


def v2(
    source: str = "192.0.2.1", port: int = 40000, *, command: int = 0x21, kind: int = 0x11, after: bytes = b""
) -> bytes:
    ip = ipaddress.ip_address(source).packed
    return (
        SIGNATURE
        + struct.pack(">BBH", command, kind, 2 * len(ip) + 4 + len(after))
        + (ip + ip + struct.pack(">HH", port, 843) + after)
    )


def fixed(command: int, kind: int, rest: int, data: bytes) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, kind, rest) + data


WHOLE = [
    v1(), v1("2001:db8::1", 65535, "TCP6"), v1("255.255.255.255", 0), b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN x\0y z\r\n",
    v1("::ffff:192.0.2.7", 1, "TCP6"), b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
    v2(), v2("2001:db8::1", kind=0x21), v2("::ffff:192.0.2.7", kind=0x21), v2(after=b"\3\0\4abcd" * 20),
    v2(command=0x20, kind=0), v2(command=0x20, kind=0xFF), fixed(0x20, 0, 0, b""), fixed(0x21, 0, 0, b""),
    fixed(0x21, 0, 4096, bytes(4096)), fixed(0x21, 0x31, 216, bytes(216)), v2(kind=0x12), v2("::1", kind=0x22),
]  # fmt: skip
BROKEN = [
    b"<policy-file-request/>\0", b"GET / HTTP/1.1\r\n", b"PROXY\r\n", b"PROXY \r\n", b"PROXY TCP4\r\n", b"proxy TCP4 ",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", b"PROXY UNKNOWNX\r\n",
    b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", b"PROXY TCP4 ::1 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", b"PROXY TCP4 192.0.2.1\0 192.0.2.2 1 2\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\0\r\n", b"PROXY UNKNOWN" + b"x" * 94, v1()[:-2] + b" " * 100,
    SIGNATURE[:-1] + b"x", SIGNATURE + b"\x11", SIGNATURE + b"\x22", fixed(0x21, 0x13, 12, b""),
    fixed(0x21, 0x41, 12, b""), fixed(0x21, 0x11, 11, b""), fixed(0x21, 0x21, 35, b""), fixed(0x21, 0x31, 215, b""),
    fixed(0x21, 0x11, 4097, b""), fixed(0x20, 0, 65535, b""),
]  # fmt: skip

places = st.lists(st.integers(0, 5000), max_size=8)
ip4, ip6 = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)
ports = st.integers(0, 65535)
streams = st.one_of(
    st.builds(v1, ip4, ports),
    st.builds(v1, ip6, ports, st.just("TCP6")),
    st.builds(v2, ip4, ports, after=st.binary(max_size=300)),
    st.builds(v2, ip6, ports, kind=st.just(0x21)),
    st.builds(fixed, st.integers(0, 255), st.integers(0, 255), st.integers(0, 300), st.binary(max_size=320)),
    st.builds(lambda words: b"PROXY " + b" ".join(words) + b"\r\n", st.lists(
        st.sampled_from([b"TCP4", b"TCP6", b"UNKNOWN", b"192.0.2.1", b"::1", b"", b"1", b"843", b"070000", b"\0"]),
        max_size=7,
    )),
    st.sampled_from(WHOLE + BROKEN),
    st.binary(max_size=120),
)  # fmt: skip


@thorough
@given(streams, st.binary(max_size=30), places)
@example(v1(), REQUEST, list(range(80)))
@example(v2(after=bytes(200)), REQUEST, list(range(300)))
def test_proxy_header_gives_any_split_the_verdict_of_the_whole(header: bytes, more: bytes, where: list[int]) -> None:
    assert feed(cut(header + more, where)) == model(header + more)


@thorough
@given(streams, st.integers(0, 400), st.integers(0, 255))
def test_proxy_header_with_one_changed_byte_agrees_with_the_definition(header: bytes, place: int, byte: int) -> None:
    data = bytearray(header)
    if data:
        data[place % len(data)] = byte
    assert feed([bytes(data)]) == model(bytes(data))


@pytest.mark.parametrize("header", WHOLE)
def test_proxy_header_fed_byte_by_byte_matches(header: bytes) -> None:
    said = feed([bytes([byte]) for byte in header + REQUEST])
    assert said == model(header + REQUEST)
    assert (said.verdict, said.consumed) == (MATCH, len(header))


@pytest.mark.parametrize("header", BROKEN)
def test_proxy_header_refuses_broken_headers(header: bytes) -> None:
    said = feed([header])
    assert said == model(header)
    assert (said.verdict, said.consumed, said.source) == (OTHER, 0, None)


def test_proxy_header_source_is_the_client() -> None:
    assert feed([v1("192.0.2.1", 40000)]).source == ("192.0.2.1", 40000)
    assert feed([v1("2001:db8::1", 1, "TCP6")]).source == ("2001:db8::1", 1)
    assert feed([v2("192.0.2.1", 65535)]).source == ("192.0.2.1", 65535)
    assert feed([v2("2001:db8::1", 7, kind=0x21, after=b"\3\0\4wxyz")]).source == ("2001:db8::1", 7)
    assert feed([v2("::ffff:192.0.2.7", kind=0x21)]).source == ("192.0.2.7", 40000)
    assert feed([v2(command=0x20)]).source is None


# -------------------------------------------------------------------------------------------------- before a request

LOOPBACK = compile_networks([ipaddress.ip_network("127.0.0.0/8")])
ELSEWHERE = compile_networks([ipaddress.ip_network("192.0.2.0/24")])
Start = Callable[..., Loop]


@pytest.mark.parametrize(
    "header", [v1(), v2(), v2("2001:db8::1", kind=0x21, after=bytes(3000)), fixed(0x20, 0, 0, b"")]
)
@pytest.mark.parametrize("size", [1, 40, 10_000])  # any split is proved on the parser
def test_acceptor_with_header_and_request_in_two_segments_replies(start: Start, header: bytes, size: int) -> None:
    loop = start(proxies=LOOPBACK)
    with loop.connect() as client:
        data = header + REQUEST
        for piece in filter(None, (data[:size], data[size:])):
            loop.send(client, piece)
        assert until_end(client) == (REPLY, "fin")
        assert loop.settle() == {"reply": 1}


def test_acceptor_with_header_and_request_byte_by_byte_replies(start: Start) -> None:
    loop = start(proxies=LOOPBACK, request_timeout=5)
    with loop.connect() as client:
        for byte in v2(after=bytes(20)) + REQUEST:
            loop.send(client, bytes([byte]))
        assert until_end(client) == (REPLY, "fin")
        assert loop.settle() == {"reply": 1}


@pytest.mark.parametrize("extra", [b"x", b"x" * 3000, b"x" * 8000])
def test_reply_is_not_lost_to_input_after_the_request(start: Start, extra: bytes) -> None:
    loop = start(proxies=LOOPBACK)
    with loop.connect() as client:
        loop.send(client, v2(after=bytes(2000)) + REQUEST + extra)
        assert until_end(client) == (REPLY, "fin")
    assert loop.settle() == {"reply": 1}


# What the client sends, and how the connection ends.
ENDS = {
    "no header": ([REQUEST], "proxy_malformed"),
    "malformed": ([b"PROXY TCP4 x y 1 2\r\n" + REQUEST], "proxy_malformed"),
    "malformed in pieces": ([b"PRO", b"XX"], "proxy_malformed"),
    "oversized line": ([b"PROXY UNKNOWN " + b"x" * 200], "proxy_oversized"),
    "oversized": ([fixed(0x21, 0x11, 5000, b"")], "proxy_oversized"),
    "late": ([v1()[:20]], "timeout"),
    "header without a request": ([v1()], "timeout"),
    "silence": ([], "timeout"),
    "http after it": ([v1() + b"GET / HTTP/1.1\r\n\r\n"], "http"),
    "tls after it": ([v1(), b"\x16\x03\x01"], "tls"),
    "something else after it": ([v1() + b"x"], "other"),
    "fin": ([v1()[:20], "FIN"], "reset"),
    "fin after the header": ([v1(), "FIN"], "reset"),
    "22 bytes and fin": ([v1() + BARE, "FIN"], "reply"),
}


@pytest.mark.parametrize(("steps", "outcome"), ENDS.values(), ids=ENDS)
def test_connection_behind_a_proxy_is_counted_once(start: Start, steps: list[bytes | str], outcome: str) -> None:
    loop = start(proxies=LOOPBACK)
    with loop.connect() as client:
        for step in steps:
            if isinstance(step, bytes):
                loop.send(client, step)
            else:
                client.shutdown(socket.SHUT_WR)
        assert loop.settle() == {outcome: 1}
        expected = {"reply": REPLY, "http": b"HTTP/1.1 400"}.get(outcome, b"")
        assert until_end(client)[0].startswith(expected)


def test_acceptor_refuses_a_peer_that_is_no_proxy(start: Start) -> None:
    loop = start(proxies=ELSEWHERE)
    with loop.connect() as client:
        assert until_end(client)[0] == b""
    assert loop.settle() == {"proxy_untrusted": 1}


def test_networks_apply_to_the_client_in_the_header(start: Start) -> None:
    networks = compile_networks([ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")])
    loop = start(proxies=LOOPBACK, networks=networks)
    for header, served in [
        (v1("192.0.2.9"), True), (v2("192.0.2.9"), True), (v2("2001:db8::1", kind=0x21), True),
        (v1("198.51.100.9"), False), (v2("198.51.100.9"), False),
        (b"PROXY UNKNOWN\r\n", False), (v2(command=0x20), False),  # the address of the connection itself
    ]:  # fmt: skip
        with loop.connect() as client:
            loop.send(client, header + REQUEST)
            assert until_end(client)[0] == (REPLY if served else b"")
    assert loop.settle() == {"reply": 3, "network": 4}


def test_access_log_has_the_client_in_the_header(start: Start) -> None:
    logged: list[tuple[str, int, str]] = []

    def tell(listener: int, ip: str, port: int, outcome: str, *rest: object) -> None:
        logged.append((ip, port, outcome))

    loop = start(proxies=LOOPBACK, on_access=tell, access_log=1.0)
    for header in (v1("192.0.2.1", 7), v2("2001:db8::1", 8, kind=0x21), b"PROXY UNKNOWN\r\n"):
        with loop.connect() as client:
            own = client.getsockname()
            loop.send(client, header + REQUEST)
            assert until_end(client)[0] == REPLY
    assert logged == [("192.0.2.1", 7, "reply"), ("2001:db8::1", 8, "reply"), (*own, "reply")]
    with loop.connect() as client:
        own = client.getsockname()
        loop.send(client, b"x")
    assert logged[3:] == [(*own, "proxy_malformed")]


@pytest.mark.parametrize("proxies", [None, LOOPBACK])
def test_client_of_a_slow_reply_is_the_one_in_the_header(start: Start, proxies: Networks | None) -> None:
    loop = start(LARGE, proxies=proxies)
    with loop.connect(receive_buffer=2048) as client:
        loop.send(client, (v1("192.0.2.1", 7) if proxies else b"") + REQUEST)
        loop.until(lambda: loop.slow_replies)
        [fd] = loop.slow_replies
        assert loop.connection_table.client(fd) == (("192.0.2.1", 7) if proxies else client.getsockname())
        loop.connection_table.close_as(fd, "shutdown")
    for wrong in (fd, -1, 1 << 30):
        with pytest.raises(ValueError, match="not a connection"):
            loop.connection_table.client(wrong)


# ------------------------------------------------------------------------------------------- relayed behind a proxy

# Of a shared port. request_timeout is the proxy's for its header, first_byte_timeout the client's for its first byte.
QUICK, SLOW = 0.05, 30.0


def test_shared_port_without_a_header_times_out(start: Start) -> None:
    loop = start(proxies=LOOPBACK, shared=True, first_byte_timeout=QUICK, request_timeout=QUICK)
    with loop.connect() as silent, loop.connect() as slow:
        loop.send(slow, v1()[:20])
        assert loop.settle() == {"timeout": 2}
        assert until_end(silent)[0] == until_end(slow)[0] == b""
    assert not loop.sessions


@pytest.mark.parametrize("together", [True, False])
def test_shared_port_relays_silence_after_a_header(start: Start, together: bool) -> None:
    """The header is not relayed, and the silence of the client begins with its end."""
    loop = start(proxies=LOOPBACK, shared=True, first_byte_timeout=QUICK, request_timeout=SLOW)
    with loop.connect() as client:
        for piece in [v2()] if together else [v2()[:5], v2()[5:]]:
            loop.send(client, piece)
        loop.until(lambda: loop.sessions)
        [(fd, data)] = loop.sessions
        assert data == b""
        assert loop.connection_table.endpoints(fd)[0][0] == "192.0.2.1"
        loop.connection_table.close_relayed(fd, 0)
    assert loop.settle() == {"relayed": 1}


def test_shared_port_relays_all_bytes_after_a_header(start: Start) -> None:
    loop = start(proxies=LOOPBACK, shared=True)
    with loop.connect() as client:
        loop.send(client, v1() + BARE[:5])
        loop.send(client, b"other")
        [(fd, data)] = loop.sessions
        assert data == BARE[:5] + b"other"
        loop.connection_table.close_relayed(fd, 0)
    assert loop.settle() == {"relayed": 1}


def test_address_table_counts_the_client_in_the_header(start: Start) -> None:
    """The address table counts the client from its header to the end of its session."""
    address_limits = SharedAddressLimits(1, ConnectionLimits(max_address_sessions=1)).of(0)
    loop = start(proxies=LOOPBACK, shared=True, address_limits=address_limits)
    with loop.connect() as first:
        assert address_limits.tracked == 0
        loop.send(first, v1() + b"x")
        assert address_limits.tracked == 1
        with loop.connect() as second:
            loop.send(second, v1() + b"x")
            assert until_end(second)[0] == b""
        [(fd, _)] = loop.sessions
        loop.connection_table.close_relayed(fd, 0)
        assert (address_limits.tracked, address_limits.held) == (0, 0)
    assert loop.settle() == {"relayed": 1, "max_address_sessions": 1}


def test_connections_without_a_header_count_as_one_address(start: Start) -> None:
    """Their clients are not known yet. Among addresses with one connection each the longest waiting gives way."""
    loop = start(
        proxies=LOOPBACK, shared=True, address_limits=SharedAddressLimits(1, ConnectionLimits(max_connections=2)).of(0),
        first_byte_timeout=SLOW, request_timeout=SLOW,
    )  # fmt: skip
    with loop.connect() as known, loop.connect() as unknown:
        loop.send(known, v1())
        with loop.connect() as third:
            assert until_end(unknown)[0] == b""
            loop.send(third, v1() + REQUEST)
            assert until_end(third) == (REPLY, "fin")
        with loop.connect() as third:
            loop.send(third, v1())
            with loop.connect() as fourth:
                assert until_end(known)[0] == b""
                loop.send(fourth, v1() + REQUEST)
                assert until_end(fourth) == (REPLY, "fin")
    assert loop.settle() == {"max_connections": 2, "reply": 2, "reset": 1}
