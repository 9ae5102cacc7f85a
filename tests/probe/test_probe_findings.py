"""Each finding against a server that has only this mistake, and no finding against correct servers."""

import contextlib
import dataclasses
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import broken
import pytest
from broken import OPEN_POLICY, POLICY, SILVERLIGHT, answering
from loopback import SHORT, Handler, Server, closed_port, dropping_port, look
from test_network import HOSTS as NETWORK

from flashpol.policy.findings import Severity
from flashpol.probe import Observation, Question, Timeouts, experiments, findings
from flashpol.probe.client_models import Conclusion, conclusions
from flashpol.probe.exchange import Address, End, Event, Exchange, Reached, What
from flashpol.probe.findings import RULES, Finding
from flashpol.probe.model import Role, Target

LOCALHOST = Address(2, "127.0.0.1")


def codes(observation: Observation) -> set[str]:
    """The codes of the probe; lint has tests of its own."""
    return {finding.code for finding in findings.of(observation) if finding.code.startswith("PB")}


SIZE_4096 = POLICY.replace(b"><a", b">" + b" " * (4095 - len(POLICY)) + b"<a") + b"\0"

# What a server does -> the findings of the gentle probe.
GENTLE: list[tuple[str, Callable[[], Handler], dict[str, object], set[str]]] = [
    ("correct", answering, {}, set()),
    ("correct, without site-control", lambda: answering(OPEN_POLICY + b"\0"), {}, set()),
    ("takes any terminator", lambda: broken.any_terminator, {}, set()),
    ("silent", lambda: broken.silent, {"timeouts": SHORT}, {"PB201"}),
    ("closes", lambda: broken.closing, {}, {"PB202"}),
    ("resets", lambda: broken.resetting, {}, {"PB203"}),
    ("HTTP", lambda: answering(b"HTTP/1.1 400 Bad Request\r\n\r\n" + POLICY), {}, {"PB204"}),
    ("TLS", lambda: answering(b"\x15\x03\x01\x00\x02\x02\x0a"), {}, {"PB205"}),
    ("HTTP, to a line", lambda: broken.web_server, {"timeouts": SHORT}, {"PB204"}),
    ("TLS, to a ClientHello", lambda: broken.tls, {}, {"PB205"}),
    ("echo", lambda: broken.echo, {}, {"PB206"}),
    ("another protocol", lambda: answering(b"220 mail.example.com ESMTP\r\n"), {}, {"PB206"}),
    ("HTML without a header", lambda: answering(b"<html><body>404</body></html>"), {}, {"PB204"}),
    ("XML of a game", lambda: answering(b"<msg t='sys'><body action='apiOK' r='0'/></msg>\0"), {}, {"PB206"}),
    ("an error in XML", lambda: answering(b"<?xml version='1.0'?><error>unknown request</error>"), {}, {"PB206"}),
    ("UTF-16", lambda: answering("<msg>hello</msg>".encode("utf-16")), {}, {"PB206"}),
    ("no NUL, held open", lambda: broken.keeping_open(POLICY), {"timeouts": SHORT}, {"PB207"}),
    ("drips", lambda: broken.dripping_reply, {"timeouts": SHORT}, {"PB208", "PB212"}),
    ("cut off", lambda: broken.cut_off, {}, {"PB208"}),
    ("endless", lambda: broken.endless, {}, {"PB209"}),
    ("no NUL", lambda: answering(POLICY), {}, {"PB210"}),
    ("held open", lambda: broken.keeping_open(POLICY + b"\0"), {}, {"PB211"}),
    ("two writes", lambda: broken.in_two_writes, {}, {"PB212"}),
    ("disagrees with itself", broken.Alternating, {}, {"PB214"}),
    ("two NULs", lambda: answering(POLICY + b"\0\0"), {}, {"PB215"}),
    ("reads 22 bytes", lambda: broken.reading_22, {}, {"PB301"}),
    ("every second request", broken.EverySecond, {}, {"PB302"}),
    ("one receive", lambda: broken.one_receive, {}, {"PB303"}),
    ("wants a line", lambda: broken.wants_a_line, {"timeouts": SHORT}, {"PB305"}),
    ("wants a line, or the end", lambda: broken.wants_a_line_or_the_end, {"timeouts": SHORT}, {"PB305"}),
    ("wants a blank", lambda: broken.wants(b"<policy-file-request />\0"), {"timeouts": SHORT}, {"PB319"}),
    ("wants a blank, closes", lambda: broken.wants(b"<policy-file-request />\0", holds=False), {}, {"PB319"}),
    ("wants a blank, and no NUL", lambda: broken.wants(b"<policy-file-request />"), {"timeouts": SHORT}, {"PB319"}),
    (
        "wants a cross-domain-request",
        lambda: broken.wants(b"<cross-domain-request/>\0"),
        {"timeouts": SHORT},
        {"PB319"},
    ),
    (
        "wants an end tag",
        lambda: broken.wants(b"<policy-file-request></policy-file-request>\0", holds=False),
        {},
        {"PB319"},
    ),
    ("wakes up", broken.SilentAtFirst, {"timeouts": SHORT}, {"PB302"}),
    ("wants the end", lambda: broken.wants_the_end, {"timeouts": SHORT}, {"PB306"}),
    ("22 bytes, waiting", broken.wants_22_bytes, {"timeouts": SHORT}, {"PB315"}),
    ("22 bytes, at once", lambda: broken.wants_22_bytes_at_once, {}, {"PB315"}),
    ("speaks first", lambda: broken.speaking_first, {}, {"PB307"}),
    ("4,096 bytes, held open", lambda: broken.keeping_open(SIZE_4096), {}, {"PB211", "PB216"}),
    ("4,096 bytes", lambda: answering(SIZE_4096), {}, set()),
    ("slow", broken.SlowAtFirst, {"ignored": frozenset()}, {"PB110"}),
    ("answers a part", lambda: broken.answering_a_part, {}, {"PB308"}),
]


@pytest.mark.parametrize(("server", "asked", "expected"), [case[1:] for case in GENTLE], ids=[c[0] for c in GENTLE])
def test_findings_of_gentle_probe_are_expected(
    server: Callable[[], Handler], asked: dict[str, object], expected: set[str]
) -> None:
    with Server(server()) as running:
        observation = look(running.port, **asked)
    assert codes(observation) == expected


THOROUGH: list[tuple[str, Callable[[], Handler], dict[str, object], set[str]]] = [
    ("correct", lambda: broken.any_terminator, {}, set()),
    ("three receives", lambda: broken.few_receives, {}, {"PB304", "PB309"}),
    ("wants the NUL", answering, {}, {"PB309"}),
    ("trips over more", lambda: broken.closing_on_more, {}, {"PB310", "PB309"}),
    ("hangs up with the client", lambda: broken.hanging_up_with, {}, {"PB311", "PB309"}),
    ("any request", lambda: broken.any_request, {}, {"PB312"}),
    ("no deadline", lambda: broken.without_deadline, {}, {"PB313", "PB309"}),
]


# These take longer than five seconds, all of it to wait.
PATIENT = {"wants the NUL", "trips over more", "hangs up with the client", "no deadline"}


@pytest.mark.parametrize(
    ("server", "asked", "expected"),
    [pytest.param(*case[1:], id=case[0], marks=[pytest.mark.slow] if case[0] in PATIENT else []) for case in THOROUGH],
)
def test_findings_of_thorough_probe_are_expected(
    server: Callable[[], Handler], asked: dict[str, object], expected: set[str]
) -> None:
    """The probe waits a little longer than the correct servers here wait for a request."""
    with Server(server()) as running:
        observation = look(running.port, thorough=True, idle=2 * broken.DEADLINE, timeouts=Timeouts(reply=1.5), **asked)
    assert codes(observation) == expected


@pytest.mark.slow
def test_serial_server_when_probed_thoroughly_is_one_at_a_time() -> None:
    with Server(broken.without_deadline, serial=True) as running:
        assert "PB314" in codes(look(running.port, thorough=True, idle=2 * broken.DEADLINE, timeouts=SHORT))
        assert "PB314" not in codes(look(running.port))


# ----------------------------------------------------------------------------------- closed ports, and other ports


@pytest.mark.parametrize(("closed", "expected"), [(closed_port, "PB105"), (dropping_port, "PB102")])
def test_port_that_refuses_or_drops_is_no_policy(
    closed: Callable[[], AbstractContextManager[int]], expected: str
) -> None:
    with closed() as port:
        assert codes(look(port, timeouts=SHORT)) == {expected, "PB106"}


def test_policy_on_destination_with_843_closed_is_a_note() -> None:
    with closed_port() as port, Server(broken.patient(OPEN_POLICY + b"\0")) as application:
        assert codes(look(port, port=application.port)) == {"PB105"}


def test_closed_destination_is_application_closed() -> None:
    with closed_port() as port, Server(answering()) as running:
        assert codes(look(running.port, port=port)) == {"PB107"}


def test_silent_destination_behind_master_has_no_findings() -> None:
    with Server(answering()) as running, Server(broken.silent) as application:
        assert codes(look(running.port, port=application.port, timeouts=SHORT)) == set()
        assert application.connections == 1


def test_policy_on_another_port_is_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port, Server(answering()) as running:
        monkeypatch.setattr(experiments, "ELSEWHERE", (running.port,))
        assert codes(look(port)) == {"PB105", "PB106"}
        assert codes(look(port, thorough=True)) == {"PB105", "PB106", "PB108"}


def test_name_without_address_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str) -> list[Address]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(experiments, "resolve", resolve)
    [finding] = findings.of(experiments.observe("games.example.com", Question()))
    assert (finding.code, finding.evidence) == ("PB101", "Name or service not known")
    assert finding.message == "games.example.com has no address: Name or service not known"
    assert finding.instead == "correct the name, or its DNS entry"


@pytest.mark.parametrize("error", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_SYSTEM])
def test_resolver_that_fails_does_not_blame_the_name(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def resolve(host: str) -> list[Address]:
        raise socket.gaierror(error, "no answer")

    monkeypatch.setattr(experiments, "resolve", resolve)
    [finding] = findings.of(experiments.observe("games.example.com", Question()))
    assert finding.code == "PB101"
    assert "could not be looked up" in finding.message
    assert "/etc/resolv.conf" in finding.instead
    assert "name" not in finding.instead


def test_addresses_with_different_policies_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [LOCALHOST, Address(2, "127.0.0.2")]
    monkeypatch.setattr(experiments, "resolve", lambda host: addresses)
    with Server(answering()) as one:
        assert codes(look(one.port)) == {"PB105", "PB106", "PB109"}
        with Server(answering(), "127.0.0.2", one.port):
            assert codes(look(one.port)) == set()
        with Server(answering(OPEN_POLICY + b"\0"), "127.0.0.2", one.port):
            [finding] = [f for f in findings.of(look(one.port)) if f.code == "PB109"]
    assert finding.evidence.startswith("127.0.0.1: a policy of ")
    assert ", 127.0.0.2: a policy of " in finding.evidence


def test_ipv6_and_ipv4_with_different_results_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "resolve", lambda host: [Address(10, "::1"), LOCALHOST])
    with Server(answering()) as one:
        observation = look(one.port)
    assert {target.asked.reached for target in observation.targets[LOCALHOST]} > {Reached.CONNECTED}
    assert "PB109" in codes(observation)


# ------------------------------------------------------------------------------------------------------ made by hand


def made(reached: Reached = Reached.CONNECTED, *received: bytes, again: int = 0, **values: object) -> Observation:
    """One address with one target, and what it did."""
    events = [Event(0.01, What.CONNECTED), *(Event(0.02, What.RECEIVED, data) for data in received)]
    exchange = Exchange(LOCALHOST, 843, reached, 0.03, "why", End.CLOSED if received else None, tuple(events))
    exchange = dataclasses.replace(exchange, **values)  # type: ignore[arg-type]
    target = Target(Role.MASTER, LOCALHOST, 843, exchange, {"again": [exchange] * again})
    return Observation("games.example.com", Question(), {LOCALHOST: (target,)})


def test_network_errors_are_unreachable_and_not_tried() -> None:
    assert codes(made(Reached.UNREACHABLE)) == {"PB103"}
    assert codes(made(Reached.UNTRIED)) == {"PB104"}


@pytest.mark.parametrize(("at", "expected"), [(0.99, set()), (1.0, {"PB110"})])
def test_policy_after_one_second_is_slow(at: float, expected: set[str]) -> None:
    events = (Event(0.5, What.CONNECTED), Event(at, What.RECEIVED, POLICY + b"\0"))
    assert codes(made(events=events, end=End.CLOSED)) == expected


FILE = POLICY.replace(b"><a", b">" + b" " * 2500 + b"<a") + b"\0"


@pytest.mark.parametrize(
    ("segments", "received", "expected"),
    [
        (2, (FILE,), {"PB213"}),  # it takes two
        (2, (FILE[:1460], FILE[1460:]), {"PB213"}),
        (3, (FILE,), {"PB213"}),  # it takes two; the third may be the NUL
        (4, (FILE,), {"PB212", "PB213"}),
        (3, (FILE[:1000], FILE[1000:2000], FILE[2000:]), {"PB212", "PB213"}),
        (None, (POLICY + b"\0",), set()),
        (None, (POLICY[:60], POLICY[60:] + b"\0"), {"PB212"}),
        (None, (POLICY, b"\0"), set()),  # clients that read once need no NUL
        (None, (POLICY, b"\r\n", b"\0"), set()),
        (1, (POLICY + b"\0",), set()),
        (2, (POLICY + b"\0",), set()),  # received in one: the second may be the NUL
        (3, (POLICY + b"\0",), {"PB212"}),
        (2, (POLICY,), {"PB212", "PB210"}),
        (2, (POLICY, b"/n"), {"PB210"}),
        (2, (POLICY + b"/n",), {"PB210"}),
        (3, (POLICY + b"\n\0",), set()),
        (2, (POLICY + b"\0", b"\n"), {"PB215"}),  # the first write is whole
        (2, (POLICY + b"\0\n",), {"PB215"}),
        (5, (POLICY + b"\0", b"\n", b"\n\n"), {"PB215"}),
        (3, (POLICY[:60], POLICY[60:] + b"\0", b"\n"), {"PB212", "PB215"}),
        (2, (POLICY.replace(b"1935", b"*").decode().encode("utf-16"),), {"PB212", "PB210"}),
    ],
)
def test_segments_beyond_the_needed_are_several_writes(
    segments: int | None, received: tuple[bytes, ...], expected: set[str]
) -> None:
    size = 1460 if segments else None
    assert codes(made(Reached.CONNECTED, *received, segments=segments, segment_bytes=size)) == expected


def test_retransmitted_segment_is_not_a_second_write() -> None:
    observation = made(Reached.CONNECTED, POLICY + b"\0", segments=1, segment_bytes=1460, again=2)
    [target] = observation.all_targets()
    target.tried["again"][0] = dataclasses.replace(target.asked, segments=2)
    assert codes(observation) == set()


# ------------------------------------------------------------------------------------------------ search and policies


@pytest.mark.slow
def test_master_only_with_second_policy_hides_it() -> None:
    with Server(answering()) as master, Server(broken.patient(OPEN_POLICY + b"\0")) as application:
        assert codes(look(master.port, port=application.port)) == {"PB401"}
    with Server(answering(OPEN_POLICY + b"\0")) as master, Server(broken.patient(OPEN_POLICY + b"\0")) as application:
        assert codes(look(master.port, port=application.port)) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        b"<cross-domain-policy/>%00",
        OPEN_POLICY.replace(b'"', b'\\"'),
        OPEN_POLICY[:40],
        b"&lt;cross-domain-policy/&gt;",
    ],
)
def test_mistakes_of_a_policy_that_no_client_reads_are_no_findings(reply: bytes) -> None:
    with Server(answering()) as master, Server(broken.patient(reply)) as application:
        seen = look(master.port, port=application.port)
        found = {finding.code for finding in findings.of(seen) if finding.severity is not Severity.NOTE}
    assert found <= {"PB401"}


def test_master_without_site_control_and_silent_destination_is_asked_on() -> None:
    with Server(answering(OPEN_POLICY + b"\0")) as master, Server(broken.silent) as application:
        seen = look(master.port, port=application.port, timeouts=SHORT)
    assert codes(seen) == {"PB402"}
    assert [f.severity for f in findings.of(seen) if f.code == "PB402"] == [Severity.WARNING]
    for named, severities in (("lightspark", [Severity.ERROR]), ("flash", [])):
        again = dataclasses.replace(seen, question=dataclasses.replace(seen.question, named=(named,)))
        assert [f.severity for f in findings.of(again) if f.code == "PB402"] == severities


def decided(policy: bytes, **asked: object) -> list[Finding]:
    with Server(answering(policy + b"\0")) as master, Server(answering(b"")) as application:
        policy_for_it = policy.replace(b"1935", str(application.port).encode())
        with Server(answering(policy_for_it + b"\0")) as right:
            port = (right if asked.pop("right", False) else master).port
            return findings.of(look(port, port=application.port, content="http://www.example.com/a.swf", **asked))


def test_denied_content_is_denied() -> None:
    [finding] = [f for f in decided(POLICY) if f.code == "PB403"]
    assert (finding.severity, finding.clients) == (Severity.ERROR, ("flash",))
    assert finding.message.startswith("flash does not let content from http://www.example.com/a.swf connect")
    assert 'is not in to-ports="1935"' in finding.evidence
    others = [f.clients for f in decided(POLICY) if f.code == "PB404"]
    assert others == [("lightspark",), ("unity",)]


def test_allowed_content_is_not_denied() -> None:
    assert not {"PB403", "PB404"} & {f.code for f in decided(POLICY, right=True)}


def test_denied_named_client_is_an_error() -> None:
    only_a_name = POLICY.replace(b'"*"', b'"www.example.com"')
    assert [f.code for f in decided(only_a_name, right=True) if f.code in ("PB403", "PB404")] == ["PB404"]
    named = decided(only_a_name, right=True, named=("unity",))
    assert [f.message.split()[0] for f in named if f.code == "PB403"] == ["unity"]


def test_flash_server_on_943_wants_a_nul() -> None:
    with Server(answering()) as master, Server(broken.without_deadline) as silverlight:
        seen = look(master.port, silverlight.port, timeouts=SHORT)
        assert [(f.code, f.clients) for f in findings.of(seen) if f.severity is Severity.ERROR] == [
            ("PB316", ("silverlight",))
        ]
        assert codes(look(master.port, silverlight.port, timeouts=SHORT, named=("flash",))) == set()


def test_finding_names_only_clients_that_ask_there() -> None:
    with closed_port() as closed:
        found = findings.of(look(closed, named=("flash", "silverlight")))
    clients = {(finding.where.endswith(f":{closed}"), finding.clients) for finding in found if finding.code == "PB105"}
    assert clients == {(True, ("flash",)), (False, ("silverlight",))}


def test_silverlight_server_on_943_is_expected_when_named() -> None:
    with Server(answering()) as master, Server(broken.answering_22) as silverlight:
        assert codes(look(master.port, silverlight.port)) == set()
        assert codes(look(master.port, silverlight.port, named=("silverlight",))) == set()
    with closed_port() as closed:
        assert codes(look(closed, closed, named=("flash",))) == {"PB105", "PB106"}
    with Server(answering()) as master:
        assert codes(look(master.port, named=("silverlight",))) == {"PB105", "PB106"}


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (POLICY.replace(b'"*"', "\u201c*\u201d".encode()), "FP109"),
        (POLICY.replace(b'"*"', b"\x93*\x94"), "FP109"),
        (POLICY.replace(b' to-ports="1935"', b""), "FP401"),
        (POLICY.replace(b'"*" to', b'"*"to'), "FP110"),
        (len(POLICY).to_bytes(2, "big") + POLICY, "FP105"),
        (b"\xef\xbb\xbf" + POLICY, "FP113"),
        (POLICY.decode().encode("utf-16"), "FP106"),
        (SILVERLIGHT, "FP811"),
        (b'<allow-access-from domain="*" to-ports="1935"/>', "FP116"),
        (b"&lt;cross-domain-policy&gt;", "FP110"),
    ],
)
def test_policy_with_mistake_is_linted(policy: bytes, code: str) -> None:
    with Server(answering(policy + b"\0")) as running:
        found = {finding.code: finding for finding in findings.of(look(running.port))}
    assert code in found
    assert found[code].where == f"127.0.0.1:{running.port}"


def test_lint_of_policy_knows_the_port() -> None:
    low = POLICY.replace(b"1935", b"80")
    with closed_port() as closed, Server(answering(low + b"\0")) as application:
        assert "FP508" in {f.code for f in findings.of(look(closed, port=application.port))}
        assert "FP508" not in {f.code for f in findings.of(look(application.port))}


# -------------------------------------------------------------------------------------------------------- the table


def test_every_rule_is_tested() -> None:
    tested = {code for cases in (GENTLE, THOROUGH) for *_, expected in cases for code in expected}
    tested |= {code for _, expected in NETWORK.values() for code in expected}
    tested |= {f"PB{number}" for number in (101, 107, 111, 112, 108, 314, 316, 317, 318, *range(401, 405))}
    elsewhere = ("PB5", "PB6", "PB7")  # test_probe_tls_findings.py, test_websocket_findings.py, test_rtmp_findings.py
    assert {rule.code for rule in RULES if not rule.code.startswith(elsewhere)} == tested


def test_ignored_finding_is_left_out() -> None:
    with Server(answering(POLICY)) as running:
        assert codes(look(running.port, ignored=frozenset(("PB210",)))) == set()


def test_findings_are_sorted_by_severity() -> None:
    with ExitStack() as stack:
        running = stack.enter_context(Server(broken.one_receive))
        severities = [finding.severity for finding in findings.of(look(running.port))]
    assert severities == sorted(severities, key=list(Severity).index)
    assert len(set(severities)) > 1


# -------------------------------------------------------------------------------------- applications with XML protocols

CHAT = (
    b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    b"<stream:error><not-well-formed/></stream:error></stream:stream>"
)


def test_chat_server_behind_master_has_no_findings() -> None:
    with Server(answering()) as master, Server(answering(CHAT)) as chat:
        seen = look(master.port, port=chat.port, content="http://www.example.com/a.swf", named=("flash",))
    assert {(f.code, f.severity) for f in findings.of(seen)} <= {("FP507", Severity.NOTE), ("PB403", Severity.ERROR)}
    assert {f.where for f in findings.of(seen) if f.code == "PB403"} == {f"127.0.0.1:{master.port}"}


def test_chat_server_without_master_is_no_policy() -> None:
    with closed_port() as closed, Server(answering(CHAT)) as chat:
        seen = look(closed, port=chat.port, content="http://www.example.com/a.swf")
    assert codes(seen) == {"PB105", "PB106"}
    assert "finds a policy" not in {conclusion.verdict for conclusion in conclusions(seen)}


# ------------------------------------------------------------------------------------------------- how the policy ends


@pytest.mark.parametrize(
    ("terminator", "shown", "words"),
    [
        (b"\\0", 'policy>\\\\0"', "two characters \\0"),
        pytest.param(b"\\x00", 'policy>\\\\x00"', "four characters \\x00", marks=pytest.mark.slow),
        pytest.param(b"/n", 'policy>/n"', "two characters /n", marks=pytest.mark.slow),
        pytest.param(b"&#0;", 'policy>&#0;"', "four characters &#0;", marks=pytest.mark.slow),
        pytest.param(b"%00", 'policy>%00"', "three characters %00", marks=pytest.mark.slow),
        pytest.param(b"0\n", 'policy>0\\n"', "one character 0", marks=pytest.mark.slow),
    ],
)
def test_nul_written_as_characters_is_named(terminator: bytes, shown: str, words: str) -> None:
    for handler, code in (
        (broken.keeping_open(POLICY + terminator), "PB207"),
        (answering(POLICY + terminator), "PB210"),
    ):
        with Server(handler) as running:
            seen = look(running.port, timeouts=SHORT)
        assert codes(seen) == {code}
        [finding] = [f for f in findings.of(seen) if f.code == code]
        assert finding.evidence.endswith(f"{shown}: {words} instead of a NUL")
        assert finding.instead.startswith(f"send a NUL (one byte of value 0) instead of {words}")


def test_newline_written_after_the_nul_is_not_a_second_write_of_the_policy() -> None:
    def println(connection: socket.socket) -> None:
        if broken.whole(connection).startswith(broken.REQUEST):
            connection.sendall(POLICY + b"\0")
            time.sleep(0.05)
            connection.sendall(b"\n")
        broken.end(connection)

    with Server(println) as running:
        assert codes(look(running.port)) == {"PB215"}


# ------------------------------------------------------------------------------------- servers that shut the prober out


def shut_out(seen: Observation) -> str:
    """The only finding: the message."""
    assert codes(seen) == {"PB317"}
    [finding] = [f for f in findings.of(seen) if f.code == "PB317"]
    assert finding.severity is Severity.NOTE
    return finding.message


@pytest.mark.parametrize("how", [None, broken.reset, broken.silent], ids=["closes", "resets", "silent"])
@pytest.mark.parametrize("max_connections", [1, 2, 3])
def test_server_that_bans_after_connections_shuts_out(max_connections: int, how: Handler | None) -> None:
    with Server(broken.Guard(max_connections, how=how)) as running:
        message = shut_out(look(running.port, timeouts=SHORT))
        assert running.connections <= max_connections + 3
    plural = "" if max_connections == 1 else "s"
    assert message.startswith(f"the server shuts the prober out after {max_connections} connection{plural}: ")


@pytest.mark.slow
@pytest.mark.parametrize("max_connections", [5, 19, 22, 24, 30])
def test_server_that_bans_after_connections_shuts_out_thorough_probe(max_connections: int) -> None:
    with Server(broken.Guard(max_connections)) as running:
        seen = look(running.port, thorough=True, idle=2 * broken.DEADLINE)
        assert running.connections <= max_connections + 7
    assert f"after {max_connections} connection" in shut_out(seen)


def test_server_that_bans_after_a_short_request_shuts_out() -> None:
    with Server(broken.Guard(strict=True)) as running:
        assert "after 3 connections" in shut_out(look(running.port))


def test_server_that_bans_after_a_silent_connection_shuts_out() -> None:
    with Server(broken.Guard(strict=True)) as running:
        seen = look(running.port, thorough=True, idle=2 * broken.DEADLINE)
    assert "shuts the prober out" in shut_out(seen)


def test_server_that_closes_its_port_shuts_out() -> None:
    count = 0

    def handle(connection: socket.socket) -> None:
        nonlocal count
        count += 1
        answering()(connection)
        if count == 3:
            running.close()

    with Server(handle) as running:
        assert "after 3 connections" in shut_out(look(running.port))


@pytest.mark.parametrize("max_rate", [1, 2, 3, 5])
def test_server_that_limits_the_rate_is_not_blamed(max_rate: int) -> None:
    with Server(broken.Limiter(max_rate)) as running:
        found = codes(look(running.port))
    assert found <= {"PB317"}


def test_server_with_one_connection_per_address_is_not_one_at_a_time() -> None:
    with Server(broken.OneConnection()) as running:
        assert codes(look(running.port, thorough=True, idle=2 * broken.DEADLINE)) == {"PB318"}


def test_failure_beside_served_plain_requests_counts() -> None:
    with Server(broken.one_receive) as running:
        seen = look(running.port)
        assert running.connections == 6  # three plain ones, the experiment, its control, the experiment again
    assert codes(seen) == {"PB303"}


# ----------------------------------------------------------------------------------- destinations that serve no policy


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (broken.tls, {"PB205"}),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), {"PB204"}),
        (broken.web_server, {"PB204"}),
        (broken.wants_a_line, {"PB305"}),
        (broken.wants_the_end, {"PB306"}),
        (broken.wants(b"<policy-file-request />\0"), {"PB319"}),
        (broken.silent, set()),
        (broken.closing, set()),
        (answering(b"%xt%e%-1%\0"), set()),
    ],
)
def test_destination_without_other_policy_is_diagnosed(handler: Handler, expected: set[str]) -> None:
    with closed_port() as closed, Server(handler) as application:
        seen = look(closed, port=application.port, timeouts=SHORT)
    assert codes(seen) == {"PB105", "PB106"} | expected
    assert {f.where for f in findings.of(seen) if f.code in expected} <= {f"127.0.0.1:{application.port}"}


@pytest.mark.parametrize("handler", [broken.tls, answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), broken.closing])
def test_destination_behind_master_is_not_diagnosed(handler: Handler) -> None:
    with Server(answering()) as master, Server(handler) as application:
        assert codes(look(master.port, port=application.port)) == set()
        assert application.connections == 1


# -------------------------------------------------------------------------------- what concerns the clients that matter


def advice(code: str, policy_port: int, /, **asked: object) -> str:
    [finding] = [f for f in findings.of(look(policy_port, timeouts=SHORT, **asked)) if f.code == code]
    return finding.instead


def test_no_policy_advises_ports_that_the_named_clients_ask() -> None:
    with closed_port() as closed, closed_port() as application:
        assert advice("PB106", closed, named=("silverlight",)).startswith("serve one on 943, or over HTTP as /client")
        assert advice("PB106", closed, named=("unity",)).startswith("serve one on 843, the port that Unity asks")
        assert advice("PB106", closed, port=application) == f"serve one on 843 or on port {application}"
        assert "name it with --port" in advice("PB106", closed)
        assert "--port" not in advice("PB106", closed, named=("silverlight",), port=application)


@pytest.mark.slow
def test_policy_on_destination_only_is_no_policy_for_unity() -> None:
    with closed_port() as closed, Server(broken.without_deadline) as application:
        assert "PB106" in codes(look(closed, port=application.port, named=("unity",), timeouts=SHORT))
        assert "PB106" not in codes(look(closed, port=application.port, named=("flash", "unity"), timeouts=SHORT))


def test_closed_port_advises_privileges_below_1024_only() -> None:
    with closed_port() as closed:
        assert "CAP_NET_BIND_SERVICE" not in advice("PB105", closed)
    assert "CAP_NET_BIND_SERVICE" in advice("PB105", 843)


@pytest.mark.slow
def test_ipv6_is_no_concern_of_unity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "resolve", lambda host: [Address(10, "::1"), LOCALHOST])
    with Server(broken.without_deadline) as running:
        assert codes(look(running.port, port=running.port, named=("unity",), timeouts=SHORT)) == set()
        everybody = findings.of(look(running.port, port=running.port, timeouts=SHORT))
    assert {f.code for f in everybody if f.where.startswith("[")} == {"PB105", "PB106", "PB107"}
    assert all("unity" not in f.clients for f in everybody if f.where.startswith("["))
    assert [f.clients for f in everybody if f.code == "PB109"] == [("flash", "lightspark")]


def test_ipv6_alone_is_no_ipv4_for_unity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiments, "resolve", lambda host: [Address(10, "::1")])
    with closed_port() as closed:
        assert codes(look(closed, named=("unity",))) == {"PB111"}
        assert "PB111" not in codes(look(closed))


# ------------------------------------------------------------------------------------------------------- shared ports


@contextlib.contextmanager
def shared_port(upstream: int | None, how: Handler | None = None) -> Iterator[int]:
    """A server that replies to policy requests, and relays what is silent for a while; without upstream it closes."""

    def handle(connection: socket.socket) -> None:
        if broken.whole(connection).startswith(broken.REQUEST):
            connection.sendall(OPEN_POLICY + b"\0")
            broken.end(connection)
            return
        if upstream is not None:
            connection.settimeout(30)
            with socket.create_connection(("127.0.0.1", upstream)) as application:
                connection.sendall(application.recv(4096))
                broken.silent(connection)
        elif how is not None:
            how(connection)

    with Server(handle) as running:
        yield running.port


@pytest.mark.slow
@pytest.mark.parametrize("how", [None, broken.reset])
def test_shared_port_without_application_says_so(how: Handler | None) -> None:
    with shared_port(None, how) as port, closed_port() as closed:
        assert codes(look(port, port=port)) == {"PB112"}
        assert codes(look(closed, port=port)) == {"PB105", "PB112"}
        assert codes(look(port)) == set()  # without --port no application is expected there
        assert "PB112" in codes(look(port, port=port, thorough=True, idle=2 * broken.DEADLINE))


@pytest.mark.slow
def test_shared_port_with_application_has_no_findings() -> None:
    with (
        Server(lambda connection: connection.sendall(b"hello\n")) as application,
        shared_port(application.port) as port,
    ):
        assert codes(look(port, port=port)) == set()
    with Server(broken.without_deadline) as silent_application:
        assert codes(look(silent_application.port, port=silent_application.port)) == set()


def test_large_policy_is_reported_once_for_lightspark() -> None:
    seen = made(Reached.CONNECTED, FILE, segments=2, segment_bytes=1460)
    found = {f.code: f.severity for f in findings.of(seen) if "lightspark" in f.clients}
    assert found.pop("PB213") is Severity.WARNING
    assert "FP705" not in found


@pytest.mark.slow
def test_full_read_is_an_error_for_named_lightspark() -> None:
    with Server(broken.keeping_open(SIZE_4096)) as running:
        for named, severities in (((), ["warning"]), (("lightspark",), ["error"]), (("flash",), [])):
            found = findings.of(look(running.port, named=named))
            assert [f.severity for f in found if f.code == "PB216"] == severities


# ----------------------------------------------------------------------------------------------- Silverlight over HTTP


def web_server(body: bytes = SILVERLIGHT, status: bytes = b"200 OK", *, chunked: bool = False) -> Handler:
    """A web server with one file, clientaccesspolicy.xml."""

    def handle(connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head and (part := connection.recv(4096)):
            head += part
        reply, content = (status, body) if head.startswith(b"GET /clientaccesspolicy.xml ") else (b"404 Not Found", b"")
        framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) if chunked else content
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(content)
        connection.sendall(b"HTTP/1.1 %b\r\n%b\r\n\r\n%b" % (reply, framing, framed))
        broken.end(connection)

    return handle


def over_http(handler: Handler, **asked: object) -> tuple[Observation, Conclusion]:
    with Server(answering()) as master, Server(handler) as web:
        seen = look(master.port, http_port=web.port, **asked)
    return seen, next(c for c in conclusions(seen) if c.client == "silverlight")


@pytest.mark.parametrize("chunked", [False, True])
def test_silverlight_policy_over_http_is_found(chunked: bool) -> None:
    seen, concluded = over_http(web_server(chunked=chunked), named=("silverlight",))
    assert codes(seen) == {"PB105"}  # nothing is missing: content may choose HTTP
    assert (concluded.connects, concluded.finds, concluded.verdict) == (None, True, "finds a policy")
    assert "SocketClientAccessPolicyProtocol.Http" in concluded.reason
    [target] = [target for target in seen.all_targets() if target.role is Role.SILVERLIGHT_HTTP]
    assert (target.served_from, target.reply.data) == (80, SILVERLIGHT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "handler",
    [
        web_server(b"<html>no such file</html>"),
        web_server(status=b"404 Not Found"),
        web_server(status=b"302 Found"),
        web_server(b""),
        answering(SILVERLIGHT),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + SILVERLIGHT),
        answering(b"HTTP/1.1 x\r\n\r\n"),
        broken.closing,
    ],
)
def test_web_server_without_silverlight_policy_is_no_policy(handler: Handler) -> None:
    seen, concluded = over_http(handler, named=("silverlight",))
    assert codes(seen) == {"PB105", "PB106"}
    assert (concluded.connects, concluded.finds) == (False, False)
    assert "serves no clientaccesspolicy.xml" in concluded.sentence
    assert codes(over_http(handler)[0]) == set()


def test_web_server_of_a_host_without_silverlight_has_no_findings() -> None:
    assert codes(over_http(web_server(b"hello"))[0]) == set()
    with Server(answering()) as master, Server(web_server()) as web:
        look(master.port, http_port=web.port, named=("flash",))
        assert web.connections == 0
