"""Flash Player: Adobe's rules as a table, and any policy against a model that expands every port."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import Decider, decide
from testkit.examples import examples

URL = "http://www.example.com/game.swf"
META = "permitted-cross-domain-policies"


def policy(*grants: str, control: str | None = None) -> bytes:
    site = "" if control is None else f'<site-control {META}="{control}"/>\n'
    return f"<cross-domain-policy>\n{site}{chr(10).join(grants)}\n</cross-domain-policy>".encode()


def grant(domain: str = "*", ports: str = "1935", more: str = "") -> str:
    return f'<allow-access-from domain="{domain}" to-ports="{ports}" {more}/>'


PORTS = "F8/A60: comma list of ports and a-b ranges, or a single *"
DOMAIN = "protocol.md: domain is exact, * or *.suffix; *.foo.com also matches foo.com"
NO_WILDCARD = "protocol.md: no wildcard inside IP addresses and no other wildcard"
DNS = "protocol.md: no DNS: an IP entry matches only content loaded by IP URL"
META_RULE = "A60: site-control none, master-only, all; default all; counts only on port 843; duplicates: none wins"
HIGH = "A60: a policy served from a port >= 1024 may grant only ports >= 1024"
SECURE = "protocol.md: secure: default false; Flash warns when it comes from elsewhere, and honours it"
UNFETCHED = "protocol.md, moock: ports Flash does not fetch policies from"
LOCAL = "protocol.md: #2010 local-with-filesystem SWF files are not permitted to use sockets"
STRICT = "issue 3: where the facts are silent, the stricter reading"


@pytest.mark.parametrize(
    ("data", "content", "port", "options", "expected", "source"),
    [
        (policy(grant()), URL, 1935, {}, True, PORTS),
        (policy(grant()), URL, 1936, {}, False, PORTS),
        (policy(grant(ports="8000-8100")), URL, 8000, {}, True, PORTS),
        (policy(grant(ports="8000-8100")), URL, 8100, {}, True, PORTS),
        (policy(grant(ports="8000-8100")), URL, 8101, {}, False, PORTS),
        (policy(grant(ports="1935, 8000")), URL, 8000, {}, True, "protocol.md: documents show spaces"),
        (policy(grant(ports="*")), URL, 65535, {}, True, PORTS),
        (policy(grant(ports="*,80")), URL, 80, {}, False, STRICT),
        (policy(grant(ports="90-80")), URL, 85, {}, False, STRICT),
        (policy('<allow-access-from domain="*"/>'), URL, 80, {}, False, "F8/A60: to-ports must"),
        (policy('<allow-access-from to-ports="80"/>'), URL, 80, {}, False, "DTD: domain required"),
        (policy(grant("www.example.com")), URL, 1935, {}, True, DOMAIN),
        (policy(grant("WWW.Example.COM")), "http://www.EXAMPLE.com/", 1935, {}, True, "protocol.md: case-insensitive"),
        (policy(grant("example.com")), URL, 1935, {}, False, DOMAIN),
        (policy(grant("*.example.com")), URL, 1935, {}, True, DOMAIN),
        (policy(grant("*.example.com")), "http://example.com/", 1935, {}, True, DOMAIN),
        (policy(grant("*.example.com")), "http://badexample.com/", 1935, {}, False, DOMAIN),
        (policy(grant("*.www.example.com")), "example.com", 1935, {}, False, DOMAIN),
        (policy(grant("www.q*.com")), "http://www.qq.com/", 1935, {}, False, NO_WILDCARD),
        (policy(grant("*.0.2.1")), "http://192.0.2.1/", 1935, {}, False, NO_WILDCARD),
        (policy(grant("192.0.2.1")), "http://192.0.2.1/", 1935, {}, True, DNS),
        (policy(grant("192.0.2.1")), URL, 1935, {}, False, DNS),
        (policy(grant("www.example.com")), "http://192.0.2.1/", 1935, {}, False, DNS),
        (policy(grant()), "http://[2001:db8::1]/", 1935, {}, True, DOMAIN),
        (policy(grant(), control="none"), URL, 1935, {}, False, META_RULE),
        (policy(grant(), control="none"), URL, 1935, {"served_from": 1935}, True, META_RULE),
        (policy(grant(), control="master-only"), URL, 1935, {}, True, META_RULE),
        (policy(grant(), control="all"), URL, 1935, {}, True, META_RULE),
        (policy(f'<site-control {META}="none"/>', grant(), control="all"), URL, 1935, {}, False, META_RULE),
        (policy(grant(), f'<site-control {META}="none"/>'), URL, 1935, {}, False, META_RULE),
        (policy(grant(), control="by-content-type"), URL, 1935, {}, False, STRICT),
        (policy(grant(), "<site-control/>"), URL, 1935, {}, False, STRICT),
        (policy(grant(ports="*")), URL, 1023, {"served_from": 1024}, False, HIGH),
        (policy(grant(ports="*")), URL, 1024, {"served_from": 1024}, True, HIGH),
        (policy(grant(ports="*")), URL, 1023, {"served_from": 1023}, True, HIGH),
        (policy(grant(ports="*")), URL, 80, {"served_from": 5000}, False, HIGH),
        (policy(grant(more='secure="true"')), URL, 1935, {}, False, SECURE),
        (policy(grant(more='secure="true"')), URL, 1935, {"local": True}, False, SECURE),
        (policy(grant(more='secure="true"')), "https://a.example/", 1935, {}, True, SECURE),
        (policy(grant(more='secure="true"')), "a.example", 1935, {}, False, STRICT),
        (policy(grant(more='secure="false"')), URL, 1935, {}, True, SECURE),
        (policy(grant(more='secure="yes"')), "https://a.example/", 1935, {}, False, STRICT),
        (policy(grant(more='secure="true"'), grant()), URL, 1935, {}, True, SECURE),
        (policy(grant(ports="*")), URL, 1935, {"served_from": 25}, False, UNFETCHED),
        (policy(grant(ports="*")), URL, 25, {}, True, UNFETCHED),
        (policy(grant(ports="*")), URL, 750, {"served_from": 750}, False, UNFETCHED),
        (policy(grant()), "file:///C:/game.swf", 1935, {}, False, LOCAL),
        (b"<cross-domain-policy/>", URL, 1935, {}, False, "protocol.md: valid, grants nothing"),
        (
            b"<cross-domain-policy><site-control>" + grant().encode() + b"</site-control></cross-domain-policy>",
            URL, 1935, {}, False, "protocol.md: nested elements must be rejected",
        ),
        (
            policy('<allow-http-request-headers-from domain="*" headers="*"/>', grant()),
            URL, 1935, {}, True, "protocol.md: HTTP only",
        ),
        (b"\xef\xbb\xbf\n" + policy(grant()) + b"\0", URL, 1935, {}, True, "protocol.md 17: BOM"),
        (("\ufeff" + policy(grant()).decode()).encode("utf-16-le"), URL, 1935, {}, False, "compile_reply: UTF-16"),
        (b"<access-policy/>", URL, 1935, {}, False, "protocol.md 20: mixed dialects"),
        (policy(grant()).replace(b'"', "\u201d".encode()), URL, 1935, {}, False, "protocol.md 3: curly quotes"),
        (b'<?xml version="l.0"?>' + policy(grant()), URL, 1935, {}, False, "protocol.md 16: a letter l"),
    ],
)  # fmt: skip
def test_flash_decides_as_documented(
    *, data: bytes, content: str, port: int, options: dict, expected: bool, source: str
) -> None:
    [decision] = decide(data, content, port, **options)
    assert decision.allowed is expected, source
    assert decision.client == "flash"
    assert decision.reason
    assert "\n" not in decision.reason


@pytest.mark.parametrize(
    ("data", "options", "place", "words"),
    [
        (policy(grant("a.b"), grant()), {}, (3, 1), "grants it"),
        (policy(grant(ports="80")), {}, (2, 41), 'port 1935 is not in to-ports="80"'),
        (policy(grant("a.b"), grant(ports="80")), {}, (3, 41), "in no other grant for www.example.com"),
        (policy(grant("a.b")), {}, (None, None), "no grant is for content from www.example.com"),
        (policy(), {}, (None, None), "has no grants"),
        (policy('<allow-access-from domain="*"/>'), {}, (2, 1), "has no to-ports"),
        (policy(grant("*.*.com")), {}, (2, 28), "Flash ignores a grant"),
        (policy(grant("x.org", "x"), grant("a.b")), {}, (None, None), "no grant is for"),
        (policy(grant(more='secure="true"')), {}, (2, 55), "loaded over HTTPS"),
        (policy(grant(), control="none"), {}, (2, 48), "site-control none"),
        (policy(grant(ports="*")), {"served_from": 5000, "port": 80}, (2, 1), "from 1024 up"),
        (b"<cross-domain-policy>\n <x", {}, (2, 2), "there is no policy"),
    ],
)  # fmt: skip
def test_flash_decision_names_the_place(data: bytes, options: dict, place: tuple, words: str) -> None:
    [decision] = decide(data, URL, **{"port": 1935, **options})
    assert words in decision.reason
    assert (decision.line, decision.column) == place


def test_flash_client_words_are_the_documented_ones() -> None:
    [yes] = decide(policy(grant()), URL, 1935)
    assert yes.client_words.endswith("is permitted due to policy file at xmlsocket://SERVER:843")
    [no] = decide(policy(), URL, 1935)
    assert no.client_words == (
        f"Error: Request for resource at xmlsocket://SERVER:1935 by requestor from {URL}"
        " is denied due to lack of policy file permissions.\n#2048 security sandbox violation"
    )
    [none] = decide(policy(control="none"), URL, 1935)
    assert none.client_words.startswith(
        "Error: Ignoring policy file at xmlsocket://SERVER:843 due to meta-policy 'none'."
    )
    assert decide(policy(), "file:///x", 1935)[0].client_words.startswith("#2010")


def test_flash_secure_grant_of_another_host_warns() -> None:
    data = policy(grant(more='secure="true"'))
    assert "warns" in decide(data, "https://a.b/", 1935)[0].reason
    assert "warns" not in decide(data, "https://a.b/", 1935, local=True)[0].reason


# ----------------------------------------------------------------------------------------------------- against a model

NAMES = ["example", "a.example", "b.a.example", "xa.example", "org", "192.0.2.1"]
numbers = st.sampled_from([1, 79, 80, 81, 1023, 1024, 1025, 4000, 65535])
items = (
    numbers.map(str) | st.tuples(numbers, numbers).map("{0[0]}-{0[1]}".format) | st.sampled_from(["0", "x", "*", ""])
)
port_lists = st.lists(items, min_size=1, max_size=3).map(",".join)
domains = st.sampled_from([*NAMES, *(f"*.{name}" for name in NAMES), "*", "*.*", "a*.example", "A.EXAMPLE", ""])
grants = st.tuples(domains, port_lists, st.sampled_from([None, "true", "false", "maybe"]))
controls = st.none() | st.sampled_from(["none", "all", "master-only", "by-content-type"])


def model_ports(text: str) -> set[int]:
    if text == "*":
        return set(range(1, 65536))
    opened: set[int] = set()
    for item in text.split(","):
        ends = item.split("-")
        if not all(end.isdigit() and 1 <= int(end) <= 65535 for end in ends):
            return set()
        if int(ends[0]) > int(ends[-1]):
            return set()
        opened |= set(range(int(ends[0]), int(ends[-1]) + 1))
    return opened


def model_domain(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    want, have = pattern.lower().split("."), host.split(".")
    if want[0] == "*":
        if "*" in "".join(want[1:]) or want[-1].isdigit():
            return False
        return have[len(have) - len(want) + 1 :] == want[1:] and len(have) >= len(want) - 1
    return want == have


def model(chosen: list, control: str | None, scheme: str, host: str, port: int, source: int) -> bool:
    if control in ("none", "by-content-type") and source == 843:
        return False
    if source >= 1024 and port < 1024:
        return False
    return any(
        model_domain(domain, host) and port in model_ports(ports)
        and secure != "maybe" and (secure != "true" or scheme == "https")
        for domain, ports, secure in chosen
    )  # fmt: skip


@given(
    st.lists(grants, max_size=5), controls, st.sampled_from(["http", "https"]), st.sampled_from(NAMES), numbers,
    st.sampled_from([843, 844, 1023, 1024, 9000]),
)  # fmt: skip
@examples(400)
def test_flash_agrees_with_a_model(
    chosen: list, control: str | None, scheme: str, host: str, port: int, source: int
) -> None:
    lines = [grant(domain, ports, "" if secure is None else f'secure="{secure}"') for domain, ports, secure in chosen]
    decider = Decider(policy(*lines, control=control), ["flash"])
    [decision] = decider.decide(f"{scheme}://{host}/x.swf", port, served_from=source)
    assert decision.allowed is model(chosen, control, scheme, host, port, source)
    if decision.allowed:
        assert decision.line
        domain, ports, secure = chosen[decision.line - 2 - (control is not None)]
        assert model([(domain, ports, secure)], None, scheme, host, port, source), (
            "the line shown is one that grants it"
        )
