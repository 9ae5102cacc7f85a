"""Origins: whom a path accepts by the policy, by a list, or in any case; what a client sends never raises."""

import pytest
from hypothesis import example, given, reject
from hypothesis import strategies as st

from flashpol.config import ConfigError
from flashpol.config.websocket import ORIGINS
from flashpol.gateway import origins
from flashpol.gateway.origins import GENERATION, MAX_ORIGIN_BYTES, Memory, Origins, Verdict
from flashpol.policy import compile_reply, decide

POLICY = b"""<cross-domain-policy>
<allow-access-from domain="www.example.com" to-ports="7000-7010"/>
<allow-access-from domain="*.games.example" to-ports="7000"/>
<allow-access-from domain="secure.example" to-ports="7000" secure="true"/>
<allow-access-from domain="192.0.2.1" to-ports="7000"/>
</cross-domain-policy>"""
EVERYWHERE = b'<cross-domain-policy><allow-access-from domain="*" to-ports="7000"/></cross-domain-policy>'
SECURE_EVERYWHERE = EVERYWHERE.replace(b"/>", b' secure="true"/>', 1)

# Origins from nowhere: of local files and sandboxed frames, and of programs that name themselves.
NOWHERE = [
    b"null",
    b"file://",
    b"file:///home/user/game.html",
    b"chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    b"moz-extension://8c1b7a3e-9f52-4c7c-8a3f-0d2a3f1b5c6d",
    b"app://www.example.com",
    b"capacitor://www.example.com",
    b"ws://www.example.com",
]
MALFORMED = [
    b"",
    b" ",
    b"Null",
    b"www.example.com",
    b"//www.example.com",
    b"https://",
    b"https:///",
    b"https://www.example.com/",
    b"https://www.example.com/game.swf",
    b"https://www.example.com?q",
    b"https://www.example.com#f",
    b"https://user@www.example.com",
    b"https://user:pw@www.example.com",
    b"https://www.example.com:",
    b"https://www.example.com:0",
    b"https://www.example.com:080",
    b"https://www.example.com:65536",
    b"https://www.example.com:123456",
    b"https://www.example.com:80:80",
    b"https://www..example.com",
    b"https://-www.example.com",
    b"https://%77ww.example.com",
    b"https://*.example.com",
    b"https://1.2.3",
    b"https://256.0.0.1",
    b"https://[2001:db8::1",
    b"https://[2001:db8::1::2]",
    b"https://[fe80::1%25eth0]",
    b"https://2001:db8::1",
    b"https://a.example, https://b.example",
    b"https://a.example https://b.example",
    b"https://www.example.com\n",
    b"https://www.example.com\0",
    "https://bücher.example".encode(),
    "https://www.example.com".encode("utf-16"),
    b"https://w\xffw.example.com",
    b"app://\xff",
    b"about:blank",
    b"javascript:alert(1)",
    b"https://" + b"a." * 252 + b"com",
    b"app://" + b"a" * MAX_ORIGIN_BYTES,
]


def judged(origin: bytes, policy: bytes = POLICY, port: int = 7000, **settings: object) -> Verdict:
    return Origins(policy, port, **{"served_from": port, **settings}).judge([origin])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("origin", "line"),
    [
        (b"http://www.example.com", 2),
        (b"https://www.example.com", 2),
        (b"https://www.example.com:8443", 2),
        (b"https://www.example.com:443", 2),
        (b"HTTPS://WWW.Example.COM", 2),
        (b"https://games.example", 3),
        (b"https://xn--bcher-kva.games.example", 3),
        (b"https://a_b.games.example", 3),
        (b"https://secure.example", 4),
        (b"http://192.0.2.1", 5),
    ],
)
def test_judge_granted_origin_is_accepted_by_its_line(origin: bytes, line: int) -> None:
    verdict = judged(origin)
    assert (verdict.allowed, verdict.result, verdict.status, verdict.line) == (True, "accepted", 0, line)
    assert f"line {line} of the policy" in verdict.reason
    assert "warns" not in verdict.reason
    assert verdict.origin == origin.decode()


@pytest.mark.parametrize(
    ("origin", "port", "words"),
    [
        (b"https://evil.example", 7000, "no grant is for content from evil.example"),
        (b"https://example.com", 7000, "no grant is for content from example.com"),
        (b"https://www.example.com.evil.example", 7000, "no grant is for"),
        (b"https://notgames.example", 7000, "no grant is for"),
        (b"https://www.example.com.", 7000, "no grant is for"),
        (b"https://www.example.com", 7011, 'port 7011 is not in to-ports="7000-7010"'),
        (b"http://secure.example", 7000, 'secure="true", only for content loaded over HTTPS (line 4 of the policy)'),
        (b"https://[::ffff:192.0.2.1]", 7000, "no grant is for"),
    ],
)
def test_judge_other_origin_is_refused_with_the_reason(origin: bytes, port: int, words: str) -> None:
    verdict = judged(origin, port=port)
    assert (verdict.allowed, verdict.result, verdict.status) == (False, "origin", 403)
    assert words in verdict.reason
    assert verdict.reason.startswith(f'Origin "{origin.decode()}" may not connect to port {port}: ')


@pytest.mark.parametrize("origin", NOWHERE)
def test_judge_origin_from_nowhere_needs_a_grant_for_everywhere(origin: bytes) -> None:
    refused = judged(origin)
    assert (refused.result, refused.status) == ("origin", 403)
    assert judged(origin, EVERYWHERE).allowed
    assert not judged(origin, SECURE_EVERYWHERE).allowed
    assert "write the content's URL" not in judged(origin, SECURE_EVERYWHERE).reason


@pytest.mark.parametrize("origin", MALFORMED)
@pytest.mark.parametrize("rule", ["policy", "any", ("https://www.example.com", "https://*.example.com")])
def test_judge_malformed_origin_is_malformed_for_every_rule(origin: bytes, rule: str | tuple[str, ...]) -> None:
    verdict = judged(origin, EVERYWHERE, rule=rule)
    assert (verdict.allowed, verdict.result, verdict.status) == (False, "malformed", 400)


@pytest.mark.parametrize("origin", [b"https://[2001:db8::1]", b"http://[2001:DB8::1]:8080"])
def test_judge_ipv6_origin_matches_only_everywhere(origin: bytes) -> None:
    assert judged(origin, EVERYWHERE).allowed
    assert judged(origin).result == "origin"


@pytest.mark.parametrize("rule", ["policy", "any", ("https://www.example.com",)])
def test_judge_without_origin_depends_on_its_setting_alone(rule: str | tuple[str, ...]) -> None:
    refused = Origins(EVERYWHERE, 7000, rule=rule).judge([])
    assert (refused.allowed, refused.result, refused.status) == (False, "no_origin", 403)
    assert Origins(POLICY, 7000, rule=rule, without_origin=True).judge([]).allowed


@pytest.mark.parametrize("rule", ["policy", "any"])
def test_judge_several_origins_are_malformed(rule: str) -> None:
    verdict = Origins(EVERYWHERE, 7000, rule=rule).judge([b"https://www.example.com"] * 2)
    assert (verdict.result, verdict.status) == ("malformed", 400)
    assert "2 Origin fields" in verdict.reason


@pytest.mark.parametrize("policy", [b"", b"<cross-domain-policy>", b"<access-policy/>", b"\xff\xfe", b"<html/>"])
def test_judge_unreadable_policy_allows_no_origin(policy: bytes) -> None:
    verdict = judged(b"https://www.example.com", policy)
    assert (verdict.result, verdict.status) == ("origin", 403)
    assert "there is no policy" in verdict.reason


def test_judge_policy_from_a_high_port_grants_no_low_port() -> None:
    policy = EVERYWHERE.replace(b"7000", b"80,7000")
    origin = b"https://www.example.com"
    assert not judged(origin, policy, port=80, served_from=7000).allowed
    assert judged(origin, policy, port=80, served_from=443).allowed
    assert judged(origin, policy, port=80, served_from=None).allowed


def test_judge_master_policy_none_allows_no_origin() -> None:
    policy = EVERYWHERE.replace(b"<allow", b'<site-control permitted-cross-domain-policies="none"/><allow')
    assert not judged(b"https://www.example.com", policy, served_from=843).allowed
    assert judged(b"https://www.example.com", policy, served_from=7000).allowed


def test_judge_reply_decides_as_its_policy() -> None:
    assert judged(b"https://www.example.com", compile_reply(POLICY)).line == 2


@given(
    st.sampled_from(
        ["www.example.com", "games.example", "a.games.example", "secure.example", "192.0.2.1", "b.example"]
    ),
    st.sampled_from(["http", "https"]),
    st.sampled_from(["", ":80", ":443", ":8080"]),
    st.sampled_from([80, 843, 7000, 7005, 7011]),
    st.sampled_from([None, 22, 843, 7000]),
)
def test_judge_agrees_with_decide(host: str, scheme: str, own_port: str, port: int, served_from: int | None) -> None:
    [decision] = decide(POLICY, f"{scheme}://{host}{own_port}/game.swf", port, served_from=served_from)
    origin = f"{scheme}://{host}{own_port}".encode()
    verdict = Origins(POLICY, port, served_from=served_from).judge([origin])
    assert (verdict.allowed, verdict.line) == (decision.allowed, decision.line)


@example([b"https://\xc5\xbf.example"])
@given(st.lists(st.one_of(st.binary(max_size=600), st.sampled_from(NOWHERE + MALFORMED)), max_size=3))
def test_judge_anything_gives_one_printable_line(values: list[bytes]) -> None:
    for rule in ("policy", "any", ("https://*.example.com",)):
        verdict = Origins(EVERYWHERE, 7000, rule=rule).judge(values)
        assert verdict.allowed == (verdict.status == 0) == (verdict.result == "accepted")
        for text in (verdict.reason, verdict.origin):
            assert text.isascii()
            assert text.isprintable()
            assert len(text) <= 600


def test_judge_reason_with_words_of_the_policy_is_ascii_and_short() -> None:
    policy = EVERYWHERE.replace(b"/>", "".join(f' ä{n}="é"' for n in range(100)).encode() + b"/>", 1)
    reason = judged(b"https://www.example.com", policy).reason
    assert reason.isascii()
    assert len(reason) <= 400


@pytest.mark.parametrize(
    ("entry", "matching", "others"),
    [
        (
            "https://www.example.com",
            ["https://www.example.com", "https://www.example.com:443", "HTTPS://WWW.EXAMPLE.COM"],
            [
                "http://www.example.com",
                "https://example.com",
                "https://www.example.com:444",
                "https://a.www.example.com",
            ],
        ),
        ("http://Games.Example:80", ["http://games.example"], ["https://games.example", "http://games.example:8080"]),
        (
            "https://*.example.com:8443",
            ["https://a.example.com:8443", "https://a.b.example.com:8443"],
            ["https://example.com:8443", "https://a.example.com", "https://aexample.com:8443"],
        ),
        ("http://[2001:DB8:0::1]", ["http://[2001:db8::1]", "http://[2001:db8:0:0::1]:80"], ["http://[2001:db8::2]"]),
        ("http://192.0.2.1", ["http://192.0.2.1"], ["http://192.0.2.2"]),
        ("null", ["null"], ["file://", "https://null"]),
        ("capacitor://localhost", ["capacitor://localhost"], ["null", "ionic://localhost", "http://localhost"]),
        (
            "app://*.example:1",
            ["app://a.example:1"],
            ["app://a.example", "app://example:1", "app://", "app://*.example"],
        ),
        ("app://localhost:80", ["app://localhost:80"], ["app://localhost", "app://localhost/"]),
    ],
)
def test_judge_list_accepts_what_it_names(entry: str, matching: list[str], others: list[str]) -> None:
    origins = Origins(b"no policy", 7000, rule=("https://first.example", entry))
    assert [origin for origin in matching + others if origins.judge([origin.encode()]).allowed] == matching
    refused = origins.judge([others[0].encode()])
    assert (refused.result, refused.status) == ("origin", 403)


@given(
    st.sampled_from(["http", "https", "capacitor", "chrome-extension"]),
    st.sampled_from(["", "*."]),
    st.one_of(
        st.from_regex(r"[a-z0-9_-]{1,4}(\.[a-z0-9_-]{1,4}){0,3}", fullmatch=True),
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(v=6).map(lambda address: f"[{str(address).partition('%')[0]}]"),
    ),
    st.sampled_from(["", ":80", ":443", ":8080"]),
)
def test_origins_take_every_entry_that_a_configuration_may_have(
    scheme: str, wildcard: str, host: str, port: str
) -> None:
    entry = f"{scheme}://{wildcard}{host}{port}"
    try:
        listed = ORIGINS.read("origins", [entry])
    except ConfigError:
        reject()
    origins = Origins(POLICY, 7000, rule=listed)
    origin = f"{scheme}://{'a.' if wildcard else ''}{host}{port}"
    assert origins.judge([origin.encode()]).allowed
    if not wildcard:
        assert not origins.judge([origin.replace("://", "://a.").encode()]).allowed


@pytest.mark.parametrize(
    "rule", ["Policy", "https://www.example.com", ("https://www.example.com/",), ("*",), ("https://*.192.0.2.1",)]
)
def test_origins_rule_that_matches_nothing_raises(rule: str | tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"rule|origin|Origin|content"):
        Origins(POLICY, 7000, rule=rule)


def test_judge_flood_of_refused_origins_keeps_the_allowed() -> None:
    origins = Origins(POLICY, 7000)
    allowed = origins.judge([b"https://www.example.com"])
    for n in range(3 * GENERATION):
        origins.judge([b"https://%d.evil.example" % n])
    assert origins.judge([b"https://www.example.com"]) is allowed


def test_judge_malformed_origins_are_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[bytes] = []
    monkeypatch.setattr(origins.Memory, "put", lambda self, origin, verdict: put.append(origin))
    subject = Origins(POLICY, 7000)
    for value in MALFORMED:
        subject.judge([value])
    assert put == []
    subject.judge([b"null"])
    assert put == [b"null"]


def test_memory_keeps_what_is_asked_for_among_any_number_of_others() -> None:
    memory = Memory()
    verdict = Verdict(True, "accepted", 0, "")
    memory.put(b"asked", verdict)
    memory.put(b"not asked", verdict)
    for n in range(10 * GENERATION):
        memory.put(b"%d" % n, verdict)
        if n % (GENERATION // 2) == 0:
            assert memory.get(b"asked") is verdict
    assert memory.get(b"not asked") is None
    assert len(memory) <= 2 * GENERATION
