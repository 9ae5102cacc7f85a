"""Unity Web Player: what its source does, as a table; its port parser against a model that lists every port."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import decide
from testkit.examples import examples

URL = "http://www.example.com/game.html"


def policy(*elements: str) -> bytes:
    return f"<cross-domain-policy>{chr(10).join(elements)}</cross-domain-policy>".encode()


def grant(domain: str = "*", ports: str = "1200", more: str = "") -> str:
    return f'<allow-access-from domain="{domain}" to-ports="{ports}" {more}/>'


def sized(size: int) -> bytes:
    data = policy(grant())
    return data[:-22] + b" " * (size - len(data)) + data[-22:]


ENDS = "protocol.md: ranges exclude the end port (1200-1220 omits 1220; N-N grants nothing)"
DOMAIN = 'protocol.md: only domain="*" counts'
HIGH = "protocol.md: Unity tests port > 1024, so 1024 itself slips"
MISSING = "protocol.md: to-ports missing: Unity allows every port"
SIZE = "protocol.md: one receive of at most 5,000 bytes"
SOURCE = "FlashCrossDomainPolicy.cs, FlashCrossDomainPolicyParser.cs"


@pytest.mark.parametrize(
    ("data", "port", "options", "expected", "source"),
    [
        (policy(grant()), 1200, {}, True, SOURCE),
        (policy(grant()), 1201, {}, False, SOURCE),
        (policy(grant(ports="1200-1220")), 1200, {}, True, ENDS),
        (policy(grant(ports="1200-1220")), 1219, {}, True, ENDS),
        (policy(grant(ports="1200-1220")), 1220, {}, False, ENDS),
        (policy(grant(ports="80-80")), 80, {}, False, ENDS),
        (policy(grant(ports="1200-1220,1220")), 1220, {}, True, ENDS),
        (policy(grant(ports="*")), 65535, {}, True, SOURCE),
        (policy(grant(ports="*,80")), 81, {}, False, SOURCE),
        (policy(grant(ports=" 80 , 90 - 95 ")), 92, {}, True, SOURCE),
        (policy(grant(ports="x,80,1-2-3")), 80, {}, True, SOURCE),
        (policy(grant(ports="90-80")), 85, {}, False, SOURCE + ": reversed, out of memory"),
        (policy(grant(ports="90-80"), grant(ports="85")), 85, {}, False, SOURCE + ": reversed, out of memory"),
        (policy('<allow-access-from domain="*"/>'), 1, {}, True, MISSING),
        (policy('<allow-access-from domain="a.com"/>'), 1, {}, False, DOMAIN),
        (policy(grant("www.example.com")), 1200, {}, False, DOMAIN),
        (policy(grant("*.example.com")), 1200, {}, False, DOMAIN),
        (policy(grant(ports="*")), 1023, {"served_from": 1024}, True, HIGH),
        (policy(grant(ports="*")), 1023, {"served_from": 1025}, False, HIGH),
        (policy(grant(ports="*")), 1024, {"served_from": 5000}, True, HIGH),
        (policy('<site-control permitted-cross-domain-policies="none"/>', grant()), 1200, {}, True, SOURCE),
        (policy(grant(more='secure="true"')), 1200, {}, True, SOURCE),
        (policy(grant(more='secure="1"')), 1200, {}, False, SOURCE),
        (policy("<unknown/>", grant()), 1200, {}, True, SOURCE),
        (policy("<a><b/></a>", grant()), 1200, {}, False, SOURCE),
        (sized(5000), 1200, {}, True, SIZE),
        (sized(5001), 1200, {}, False, SIZE),
        (policy(grant()) + b" " * 5000, 1200, {}, True, SIZE),
        (b"\xef\xbb\xbf" + policy(grant()), 1200, {}, False, "UM: file should be ASCII"),
        (b"<access-policy/>", 1200, {}, False, SOURCE),
    ],
)  # fmt: skip
def test_unity_decides_as_its_source(*, data: bytes, port: int, options: dict, expected: bool, source: str) -> None:
    for content in (URL, "https://other.example/", "file:///x"):
        [decision] = decide(data, content, port, clients=["unity"], **options)
        assert decision.allowed is expected, source


def test_unity_denial_explains_that_ranges_omit_their_end() -> None:
    [decision] = decide(policy(grant(ports="1200-1220")), URL, 1220, clients=["unity"])
    assert "port 1220 ends a range" in decision.reason
    assert decision.client_words == "SecurityException: Unable to connect, as no valid crossdomain policy was found"


# ----------------------------------------------------------------------------------------------------- against a model


def int32(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\s*[+-]?\d+\s*", text, re.ASCII) and abs(int(text)) < 2**31 else None


def model(text: str, port: int) -> bool:
    if text == "*":
        return True
    opened: list[int] = []
    for item in text.split(","):
        if "-" in item:
            ends = [int32(end) for end in item.split("-")]
            if len(ends) != 2 or None in ends:
                continue
            if ends[0] > ends[1]:  # runs through all numbers
                return False
            opened.extend(range(ends[0], ends[1]))
        elif (single := int32(item)) is not None:
            opened.append(single)
    return port in opened


texts = (
    st.lists(st.sampled_from(["*", "80", "81", "90", "-", "-", ",", ",", " ", "x", "0", "+"]), min_size=1, max_size=6)
    .map("".join)
    .filter(lambda text: not re.search("[0-9]{6}", text))
)


@given(texts, st.sampled_from([1, 79, 80, 81, 89, 90, 8081]))
@examples(500)
def test_unity_ports_agree_with_a_model(text: str, port: int) -> None:
    [decision] = decide(policy(grant(ports=text)), URL, port, clients=["unity"])
    assert decision.allowed is model(text, port)
