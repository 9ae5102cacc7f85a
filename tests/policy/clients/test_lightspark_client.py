"""Lightspark: what was observed and what its source does, as a table; its port parser against a line-by-line model."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol.policy import decide
from testkit.examples import examples

URL = "http://www.example.test/game.swf"
META = "permitted-cross-domain-policies"
GRANT = '<allow-access-from domain="*" to-ports="19000"/>'
HEADERS = '<allow-http-request-headers-from domain="*" headers="*"/>'
ALL = f'<site-control {META}="all"/>'


def policy(*elements: str) -> bytes:
    return f"<cross-domain-policy>{chr(10).join(elements)}</cross-domain-policy>".encode()


def grant(domain: str = "*", ports: str = "19000", more: str = "") -> str:
    return f'<allow-access-from domain="{domain}" to-ports="{ports}" {more}/>'


def sized(reply: int) -> bytes:
    """A policy whose reply, NUL included, has so many bytes."""
    data = policy(GRANT)
    return data[:-22] + b" " * (reply - 1 - len(data)) + data[-22:]


OBSERVED = "clients.md, observed"
RANGES = "protocol.md: 4502-4506 grants only 4502; 123,456-458 grants 123 and 456; 18000-20000 denied 19000"
MISSING = "protocol.md: to-ports missing: LS invalid"
SECURE = "protocol.md: secure needs an https SWF URL"
INVALID = (
    "protocol.md: on 843 an invalid element stops parsing but earlier rules stand; on other ports it voids the file"
)
SOURCE = "security.cpp, crossdomainpolicy.cpp"
ELSEWHERE = {"served_from": 19000}


@pytest.mark.parametrize(
    ("data", "content", "port", "options", "expected", "source"),
    [
        (policy(grant()), URL, 19000, {}, True, OBSERVED),
        (policy(grant(ports="18000,19000")), URL, 19000, {}, True, OBSERVED),
        (policy(grant(ports="18000-20000")), URL, 19000, {}, False, OBSERVED),
        (policy(grant(ports="18000-20000")), URL, 18000, {}, True, RANGES),
        (policy(grant(ports="18000-20000")), URL, 20000, {}, False, RANGES),
        (policy(grant(ports="123,456-458")), URL, 123, {}, True, RANGES),
        (policy(grant(ports="123,456-458")), URL, 456, {}, True, RANGES),
        (policy(grant(ports="123,456-458")), URL, 457, {}, False, RANGES),
        (policy(grant(ports="*")), URL, 1, {}, True, SOURCE),
        (policy(grant(ports="80,*")), URL, 1, {}, True, SOURCE),
        (policy(grant(ports="*,80-90")), URL, 1, {}, False, SOURCE),
        (policy(grant("*.example.test")), URL, 19000, {}, True, OBSERVED),
        (policy(grant("*.example.test")), "http://example.test/", 19000, {}, True, SOURCE),
        (policy(grant("other.test")), URL, 19000, {}, False, OBSERVED),
        (policy(grant("WWW.EXAMPLE.TEST")), URL, 19000, {}, True, "protocol.md: case-insensitive (LS)"),
        (policy(grant("*.0.2.1")), "http://192.0.2.1/", 19000, {}, True, SOURCE),
        (b'<!DOCTYPE cross-domain-policy SYSTEM "x.dtd">' + policy(GRANT), URL, 19000, {}, True, OBSERVED),
        (b"\xef\xbb\xbf" + policy(GRANT), URL, 19000, {}, True, "protocol.md: BOM and a leading newline accepted"),
        (b"\n" + policy(GRANT), URL, 19000, {}, True, "protocol.md: BOM and a leading newline accepted"),
        (policy(f'<site-control {META}="none"/>', GRANT), URL, 19000, {}, False, OBSERVED),
        (policy(f'<site-control {META}="master-only"/>', GRANT), URL, 19000, {}, True, OBSERVED),
        (policy(f'<site-control {META}="what"/>', GRANT), URL, 19000, {}, False, SOURCE),
        (policy(f'<site-control {META}="by-content-type"/>', GRANT), URL, 19000, {}, True, SOURCE),
        (policy(grant(more='secure="true"')), URL, 19000, {}, False, SECURE),
        (policy(grant(more='secure="true"')), "https://a.test/", 19000, {}, True, SECURE),
        (policy(grant(more='secure="1"')), URL, 19000, {}, True, SOURCE),
        (policy(ALL, GRANT, HEADERS), URL, 19000, {}, True, INVALID),
        (policy(ALL, HEADERS, GRANT), URL, 19000, {}, False, INVALID),
        (policy(GRANT, HEADERS), URL, 19000, ELSEWHERE, False, INVALID),
        (policy(GRANT, HEADERS), URL, 19000, {}, False, SOURCE + ": load() sets ignore"),
        (policy(ALL, GRANT), URL, 19000, ELSEWHERE, False, SOURCE + ": site-control off 843 is INVALID"),
        (policy(ALL, GRANT, ALL), URL, 19000, {}, True, SOURCE + ": a second one is INVALID"),
        (policy(GRANT), URL, 19000, ELSEWHERE, True, OBSERVED),
        (policy(GRANT, '<allow-access-from domain="*"/>'), URL, 19000, ELSEWHERE, False, MISSING),
        (policy("<unknown/>", GRANT), URL, 19000, ELSEWHERE, True, SOURCE),
        (policy(grant(more='a="" b=""')), URL, 19000, {}, False, SOURCE + ": more than three attributes"),
        (policy(grant(ports="80")), URL, 80, {"served_from": 5000}, True, "protocol.md: no 1024 rule"),
        (sized(1448), URL, 19000, {}, True, OBSERVED),
        (sized(4095), URL, 19000, {}, True, OBSERVED),
        (sized(4096), URL, 19000, {}, True, OBSERVED + ": of a server that closes"),
        (sized(9000), URL, 19000, {}, True, OBSERVED + ": if it arrives at once"),
        (policy("<comment>hello</comment>", GRANT), URL, 19000, {}, True, OBSERVED + ": text in an unknown element"),
        (policy("<x><![CDATA[ <y> ]]></x>", GRANT), URL, 19000, ELSEWHERE, True, OBSERVED + ": CDATA"),
        (policy("hello", GRANT), URL, 19000, {}, True, SOURCE + ": only elements count"),
        (policy(GRANT.replace("/>", ">text</allow-access-from>")), URL, 19000, {}, True, SOURCE),
        (policy("<a><b><c>x</c></b></a>", GRANT), URL, 19000, {}, True, SOURCE),
        (b"<!DOCTYPE a [<!ELEMENT a ANY><!-- ] -->]>" + policy(GRANT), URL, 19000, {}, True, OBSERVED),
        (b'<!DOCTYPE a [<!ENTITY b "19000">]>' + policy(GRANT), URL, 19000, {}, False, "entities are never read"),
        (b'<!DOCTYPE a [<!ATTLIST a b CDATA "c">]>' + policy(GRANT), URL, 19000, {}, False, "attribute defaults"),
        (policy(GRANT), "file:///x.swf", 19000, {}, False, SOURCE + ": LOCAL_WITH_FILE"),
        (b"<policy/>", URL, 19000, {}, False, SOURCE),
        (b"HTTP/1.1 404\r\n\r\n", URL, 19000, {}, False, OBSERVED),
    ],
)  # fmt: skip
def test_lightspark_decides_as_observed(
    *, data: bytes, content: str, port: int, options: dict, expected: bool, source: str
) -> None:
    [decision] = decide(data, content, port, clients=["lightspark"], **options)
    assert decision.allowed is expected, source
    assert decision.client_words


def test_lightspark_skipped_file_does_not_forbid_others() -> None:
    # clients.md, observed: 843 answers HTTP, and the destination is asked; only `none` keeps Lightspark from that.
    [invalid] = decide(policy(GRANT, HEADERS), URL, 19000, clients=["lightspark"])
    [none] = decide(policy(f'<site-control {META}="none"/>'), URL, 19000, clients=["lightspark"])
    assert "Master policy file disallows policy files" not in invalid.client_words
    assert "Master policy file disallows policy files" in none.client_words


def test_lightspark_size_is_that_of_the_reply() -> None:
    assert [len(sized(4096)), len(sized(4096) + b"\0")] == [4095, 4096]
    for data in (sized(4096), sized(4096) + b"\0"):
        assert "the reply has 4,096 bytes" in decide(data, URL, 19000, clients=["lightspark"])[0].reason


@pytest.mark.parametrize(
    ("size", "segments", "hangs"),
    [(1448, False, False), (1449, True, False), (4095, True, False), (4096, True, True), (8192, True, True)],
)
def test_lightspark_decision_says_what_the_size_of_the_reply_risks(size: int, segments: bool, hangs: bool) -> None:
    [decision] = decide(sized(size), URL, 19000, clients=["lightspark"])
    assert decision.allowed
    assert (
        "more than one TCP segment of 1,448: Lightspark denies if it arrives in parts" in decision.reason
    ) is segments
    assert ("hangs after a read of 4,096 if the server keeps the connection open" in decision.reason) is hangs


@pytest.mark.parametrize("client", ["flash", "unity"])
@pytest.mark.parametrize("data", [policy("<x>text</x>", GRANT), b"<!DOCTYPE a [<!ELEMENT b ANY>]>" + policy(GRANT)])
def test_stricter_clients_deny_what_only_lightspark_is_known_to_accept(client: str, data: bytes) -> None:
    [decision] = decide(data, URL, 19000, clients=[client])
    assert not decision.allowed
    assert decision.line


# ----------------------------------------------------------------------------------------------------- against a model

NPOS = 1 << 64


def find(text: str, what: str, start: int) -> int:
    found = text.find(what, start) if start <= len(text) else -1
    return NPOS if found < 0 else found


def atoi(text: str) -> int:
    match = re.match(r"\s*[+-]?\d+", text, re.ASCII)
    # strtol saturates at the ends of a long
    return max(-(2**63), min(2**63 - 1, int(match[0]))) if match else 0


def model(ports: str, port: int) -> bool:
    """`PolicyAllowAccessFrom`, with C++'s find, substr and npos."""
    if ports == "*":
        return True
    cursor, opened = 0, set()
    while True:
        comma = find(ports, ",", cursor)
        dash = find(ports, "-", comma)
        first = ports[cursor:dash] if dash != NPOS else ports[cursor:comma]
        if first == "*":
            return True
        opened.add(atoi(first) % 65536)
        if comma == NPOS:
            return port in opened
        cursor = comma + 1


texts = st.lists(
    st.sampled_from(["*", "80", "81", "90", "65616", "-", "-", ",", ",", ",", " ", "x", "0", "+"]),
    min_size=1,
    max_size=9,
).map("".join)


@given(texts, st.sampled_from([1, 80, 81, 90, 8081, 65456, 65535]))
@example("65616656166561665616", 65535)
@example("-65616656166561665616", 1)
@examples(500)
def test_lightspark_ports_agree_with_a_model(text: str, port: int) -> None:
    [decision] = decide(policy(grant(ports=text)), URL, port, clients=["lightspark"])
    assert decision.allowed is model(text, port)
