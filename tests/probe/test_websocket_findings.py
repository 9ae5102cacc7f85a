"""Each finding about a WebSocket against a server that has only this mistake, and none against correct servers."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import broken
import pytest
import tls_servers
import websocket_servers as servers
from loopback import SHORT, Handler, Server, closed_port, look_through
from tls_servers import inside, server_context
from websocket_servers import BINARY, CLOSE, PONG, TEXT, ending, frame, opening, refusing, with_fields

from flashpol.policy.findings import Severity
from flashpol.probe import Observation, experiments, findings
from flashpol.probe.client_models import conclusions
from flashpol.probe.exchange import Address
from flashpol.probe.findings import RULES, Finding
from flashpol.probe.websocket import script
from testkit.certificates import CA, in_days, make_ca

ORIGIN = "https://www.example.com"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LISTEN", 0.15)
    monkeypatch.setattr(script, "BODY", 0.1)


def ask(port: int, *origins: str, scheme: str = "ws", path: str = "/chess", **asked: Any) -> Observation:
    return look_through(f"{scheme}://127.0.0.1:{port}{path}", *(origins or (ORIGIN,)), **asked)


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation)}


def only(observation: Observation) -> Finding:
    [finding] = findings.of(observation)
    return finding


def connects(observation: Observation) -> list[bool | None]:
    return [conclusion.connects for conclusion in conclusions(observation)]


UPGRADE_REQUIRED = refusing("426 Upgrade Required", "Upgrade: websocket", "Sec-WebSocket-Version: 13", keep=True)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"

# What a server does -> the findings.
CASES: dict[str, tuple[Handler, set[str]]] = {
    "correct": (opening(), set()),
    "correct, compression": (with_fields(f"{DEFLATE}; server_no_context_takeover; client_max_window_bits=15"), set()),
    "correct, lower case": (
        opening(head=lambda request: servers.accepted(request).replace(b"Upgrade", b"upgrade")),
        set(),
    ),
    "correct, a list": (
        opening(head=lambda request: servers.accepted(request).replace(b"n: Upgrade", b"n: keep-alive, Upgrade")),
        set(),
    ),
    "100 first": (
        opening(head=lambda request: b"HTTP/1.1 100 Continue\r\n\r\n" + servers.accepted(request)),
        {"PB628"},
    ),
    "103 first": (
        opening(head=lambda request: b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + servers.accepted(request)),
        {"PB628"},
    ),
    "102 first": (
        opening(head=lambda request: b"HTTP/1.1 102 Processing\r\n\r\n" + servers.accepted(request)),
        {"PB628"},
    ),
    "speaks first": (opening(then=frame(BINARY, b"hello") + frame(servers.PING)), set()),
    "speaks first, in fragments": (
        opening(then=frame(BINARY, b"he", first=0) + frame(PONG) + frame(0, b"llo")),
        set(),
    ),
    "compressed message": (opening(head=lambda r: servers.accepted(r, DEFLATE), then=frame(BINARY, b"x", first=0xC0)),
                           set()),
    "a long message that goes on": (opening(then=b"\x82\x7f" + (200_000).to_bytes(8, "big") + bytes(60_000)), set()),
    "policy server": (broken.answering(), {"PB609"}),
    "policy server that speaks first": (servers.raw(broken.POLICY), {"PB608"}),
    "a banner": (servers.raw(b"220 chat\r\n"), {"PB608"}),
    "a page": (servers.raw(b"<html></html>"), {"PB608"}),
    "a silent application": (broken.silent, {"PB609"}),
    "closes": (lambda connection: connection.recv(4096), {"PB610"}),
    "resets": (tls_servers.resetting, {"PB610"}),
    "half a head": (servers.raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: web"), {"PB611"}),
    "no status": (servers.raw(b"HTTP/1.1 OK\r\n\r\n"), {"PB611"}),
    "LF": (opening(head=lambda request: servers.accepted(request).replace(b"\r\n", b"\n")), {"PB612"}),
    "a folded field": (with_fields("X-Folded: a\r\n b"), {"PB612"}),
    "a blank before the colon": (with_fields("Server : x"), {"PB612"}),
    "a line without a colon": (with_fields("Server"), {"PB612"}),
    "a NUL": (with_fields("Server: \0"), {"PB611"}),
    "a control character": (with_fields("Server: \1"), {"PB612"}),
    "an empty name": (with_fields(": x"), {"PB612"}),
    "HTTP/1.0": (with_fields(version="HTTP/1.0"), {"PB613"}),
    "426": (UPGRADE_REQUIRED, {"PB620"}),
    "400": (refusing("400 Bad Request"), {"PB620"}),
    "a page at this path": (refusing("200 OK", "Content-Type: text/html", body="<html></html>"), {"PB620"}),
    "404 about an upgrade": (refusing("404 Not Found", body="Upgrade expected"), {"PB620"}),
    "404": (refusing("404 Not Found"), {"PB621"}),
    "403": (refusing("403 Forbidden", body="no"), {"PB622"}),
    "401": (refusing("401 Unauthorized", 'WWW-Authenticate: Basic realm="x"'), {"PB623"}),
    "407": (refusing("407 Proxy Authentication Required"), {"PB623"}),
    "301": (refusing("301 Moved", "Location: https://127.0.0.1/chess"), {"PB624"}),
    "307 to nowhere": (refusing("307 Temporary Redirect"), {"PB624"}),
    "502": (refusing("502 Bad Gateway"), {"PB625"}),
    "503": (refusing("503 Service Unavailable", keep=True), {"PB625"}),
    "504 chunked": (
        servers.raw(b"HTTP/1.1 504 Gateway Timeout\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"),
        {"PB625"},
    ),
    "408": (refusing("408 Request Timeout"), {"PB626"}),
    "version 8": (refusing("400 Bad Request", "Sec-WebSocket-Version: 8, 7"), {"PB627"}),
    "429": (refusing("429 Too Many Requests"), {"PB628"}),
    "no Accept": (
        opening(head=lambda request: servers.accepted(request).replace(b"Sec-WebSocket-Accept", b"X-Accept")),
        {"PB630"},
    ),
    "another Accept": (with_fields(accept="s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), {"PB630"}),
    "two Accepts": (with_fields("Sec-WebSocket-Accept: x"), {"PB630"}),
    "no Upgrade": (
        opening(head=lambda request: servers.accepted(request).replace(b"Upgrade: websocket", b"X: y")),
        {"PB631"},
    ),
    "h2c": (
        opening(head=lambda request: servers.accepted(request).replace(b"Upgrade: websocket", b"Upgrade: h2c")),
        {"PB631"},
    ),
    "Connection: close": (
        opening(head=lambda request: servers.accepted(request).replace(b"n: Upgrade", b"n: close")),
        {"PB631"},
    ),
    "a subprotocol": (with_fields("Sec-WebSocket-Protocol: binary"), {"PB632"}),
    "another extension": (with_fields("Sec-WebSocket-Extensions: x-webkit-deflate-frame"), {"PB633"}),
    "a window of 16 bits": (with_fields(f"{DEFLATE}; server_max_window_bits=16"), {"PB633"}),
    "a window of no size": (with_fields(f"{DEFLATE}; client_max_window_bits"), {"PB633"}),
    "compression twice": (with_fields(f"{DEFLATE}, permessage-deflate"), {"PB633"}),
    "FIN after 101": (ending(), {"PB640"}),
    "RST after 101": (opening(broken.reset), {"PB640"}),
    "Close after 101": (opening(then=frame(CLOSE, b"\x03\xf3no upstream")), {"PB640"}),
    "text": (opening(then=frame(TEXT, b"hello")), {"PB641"}),
    "text in fragments": (opening(then=frame(TEXT, b"he", first=0)), {"PB641"}),
    "a masked frame": (opening(then=b"\x82\x81\0\0\0\0x"), {"PB642"}),
    "a reserved bit": (opening(then=frame(BINARY, b"x", first=0xC0)), {"PB642"}),
    "a reserved opcode": (opening(then=frame(3)), {"PB642"}),
    "a long ping": (opening(then=b"\x89\x7e\0\x7e" + bytes(126)), {"PB642"}),
    "a ping in fragments": (opening(then=frame(servers.PING, first=0)), {"PB642"}),
    "a length of too many bytes": (opening(then=b"\x82\x7e\0\x05hello"), {"PB642"}),
    "a length of 2**63": (opening(then=b"\x82\x7f\x80" + bytes(7)), {"PB642"}),
    "continues nothing": (opening(then=frame(0, b"x")), {"PB642"}),
    "a message within another": (opening(then=frame(BINARY, b"x", first=0) + frame(BINARY, b"x")), {"PB642"}),
    "Close 1006": (opening(then=frame(CLOSE, b"\x03\xee")), {"PB642"}),
    "half a Close": (opening(then=frame(CLOSE, b"\x03")), {"PB642"}),
    "Close with bad UTF-8": (opening(then=frame(CLOSE, b"\x03\xe8\xff")), {"PB642"}),
    "HTTP after 101": (opening(then=b"HTTP/1.1 400 Bad Request\r\n\r\n"), {"PB642"}),
    "deaf": (opening(servers.deaf), {"PB643"}),
    "closes on a ping": (opening(lambda connection: connection.recv(4096)), {"PB643"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_findings_about_websocket_are_expected(case: str) -> None:
    handler, expected = CASES[case]
    with Server(handler) as running:
        seen = ask(running.port, timeouts=SHORT)
    assert codes(seen) == expected
    errors = any(finding.severity is Severity.ERROR for finding in findings.of(seen))
    assert connects(seen) == [not errors]


def test_every_finding_about_websocket_has_a_test() -> None:
    by_name = ["PB601", "PB602", "PB603", "PB604", "PB605", "PB606", "PB607", "PB629", "PB644"]  # below
    tried = set().union(*(expected for _, expected in CASES.values()), by_name)
    assert tried - {rule.code for rule in RULES} == set()
    assert {rule.code for rule in RULES if rule.code.startswith("PB6")} - tried == set()


# ---------------------------------------------------------------------------------------- before the browser asks


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> str:
    """A name that means this machine, and is no loopback name to browsers."""
    monkeypatch.setattr(experiments, "resolve", lambda host: [Address(socket.AF_INET, "127.0.0.1")])
    return "games.example.com"


def test_closed_port_is_no_connection() -> None:
    with closed_port() as port:
        seen = ask(port)
    assert (only(seen).code, connects(seen)) == ("PB601", [False])


def test_closed_port_at_one_address_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Address(socket.AF_INET, "127.0.0.1"), Address(socket.AF_INET, "127.0.0.2")]
    monkeypatch.setattr(experiments, "resolve", lambda host: both)
    with Server(opening()) as running:
        finding = only(ask(running.port))
    assert (finding.code, finding.severity, finding.where) == ("PB602", Severity.WARNING, f"127.0.0.2:{running.port}")


def test_unknown_name_is_no_address() -> None:
    finding = only(look_through("wss://nowhere.invalid/"))
    assert (finding.code, finding.severity, finding.clients) == ("PB101", Severity.ERROR, ("browser",))


def test_page_on_https_gets_no_plain_websocket(named: str) -> None:
    with Server(opening()) as running:
        text = f"ws://{named}:{running.port}/"
        seen = look_through(text, ORIGIN, "http://www.example.com")
        assert only(seen).code == "PB603"
        assert f"{text} from pages of {ORIGIN}:" in only(seen).message
        assert connects(seen) == [False]
        assert codes(look_through(text, "http://www.example.com")) == set()
        assert codes(look_through(text, "null")) == set()


def test_port_that_browsers_block_is_an_error(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(opening()) as running:
        monkeypatch.setattr("flashpol.probe.websocket.judgement.BLOCKED_PORTS", {running.port})
        seen = look_through(f"ws://{named}:{running.port}/")
    assert (only(seen).code, connects(seen)) == ("PB604", [False])


def test_http_in_the_url_is_a_note() -> None:
    with Server(opening()) as running:
        finding = only(ask(running.port, scheme="http"))
    assert (finding.code, finding.severity) == ("PB605", Severity.NOTE)
    assert finding.instead == f"write ws://127.0.0.1:{running.port}/chess in `socketProxy`"


# --------------------------------------------------------------------------------------------------- what is said


def test_no_upgrade_names_the_lines_that_the_proxy_needs() -> None:
    hints = {
        "Server: nginx/1.22.1": "proxy_set_header Upgrade $http_upgrade",
        "Via: 1.1 host (squid/5.7)": "http_upgrade_request_protocols",
        "Via: 1.1 tinyproxy (tinyproxy/1.11.1)": "take another proxy",
        "Server: Apache/2.4.66 (Debian)": "upgrade=websocket",
        "Via: 1.1 varnish": "return (pipe)",
        "Server: cloudflare": "a switch for WebSockets",
        "Server: Apache-Coyote/1.1": "find the proxy on the way",
    }
    for field, hint in hints.items():
        with Server(refusing("426 Upgrade Required", field)) as running:
            finding = only(ask(running.port))
        assert hint in finding.instead
        assert field in finding.evidence
        assert finding.evidence.endswith("; a GET without Upgrade gets the same")


def test_refusal_of_flashpol_is_quoted() -> None:
    reason = "https://evil.example may not connect to port 7000: no grant for it"
    with Server(servers.for_origin(ORIGIN, reason)) as running:
        finding = only(ask(running.port, "https://evil.example"))
    assert finding.message == f"pages of https://evil.example get no WebSocket: 403 Forbidden: {reason}"


def test_body_that_is_not_for_people_is_not_quoted() -> None:
    with Server(refusing("403 Forbidden", "Content-Type: text/html", body="<html>\r\n")) as running:
        assert only(ask(running.port)).message.endswith(": 403 Forbidden")


def test_several_origins_have_a_connection_and_a_finding_each() -> None:
    with Server(servers.for_origin(ORIGIN)) as running:
        seen = ask(running.port, "https://a.example", ORIGIN, "https://b.example", "https://a.example")
        assert running.connections == 3
    found = findings.of(seen)
    assert [finding.code for finding in found] == ["PB622", "PB622"]
    assert connects(seen) == [False]
    [conclusion] = conclusions(seen)
    assert conclusion.reason.endswith(" (to 2 of 3 origins, the first https://a.example)")


def test_refusal_that_is_the_same_for_each_origin_is_found_once() -> None:
    with Server(refusing("502 Bad Gateway")) as running:
        assert only(ask(running.port, "https://a.example", "https://b.example")).code == "PB625"


def test_redirect_says_which_url_to_write() -> None:
    with Server(refusing("301 Moved", "Location: https://games.example.com/chess")) as running:
        assert only(ask(running.port)).instead == "write wss://games.example.com/chess in `socketProxy`"


def test_close_after_101_quotes_code_and_reason() -> None:
    with Server(opening(then=frame(CLOSE, b"\x03\xf3no upstream"))) as running:
        assert 'Close 1011 (internal error) "no upstream"' in only(ask(running.port)).message


def test_slow_upgrade_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashpol.probe.findings.opened.SLOW", 0.0)
    with Server(opening()) as running:
        finding = only(ask(running.port, ignored=frozenset()))
    assert (finding.code, finding.severity) == ("PB644", Severity.WARNING)


def test_server_for_every_page_is_found_thoroughly() -> None:
    with Server(opening()) as running:
        assert codes(ask(running.port)) == set()
        assert only(ask(running.port, thorough=True)).code == "PB629"
    with Server(servers.for_origin(ORIGIN)) as running:
        assert codes(ask(running.port, thorough=True)) == set()


def test_policy_at_the_port_is_none_that_counts() -> None:
    """No browser reads it, so lint does not judge it and no report shows it."""
    with Server(servers.raw(broken.POLICY + b"\0")) as running:
        [target] = ask(running.port).all_targets()
    assert (target.reply.is_policy, target.serves) == (True, False)


def test_close_in_the_segment_of_101_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LISTEN", 60.0)
    with Server(opening(then=frame(CLOSE, b"\x03\xe8"))) as running:
        [target] = ask(running.port).all_targets()
    assert target.asked.ended < 30


def test_flood_of_small_frames_ends() -> None:
    with Server(opening(then=frame(BINARY) * 100_000)) as running:
        seen = ask(running.port, timeouts=SHORT)
    assert codes(seen) == set()
    assert len(seen.all_targets()[0].asked.data) == 100_000


# ------------------------------------------------------------------------------------------------------------ TLS


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


@contextlib.contextmanager
def secure(ca: CA, **issued: Any) -> Iterator[Server]:
    with Server(inside(ca.issue("127.0.0.1", **issued), opening())) as running:
        yield running


def ask_inside(port: int, ca: CA | None, **asked: Any) -> Observation:
    return ask(port, scheme="wss", ca=None if ca is None else str(ca.file), **asked)


def test_websocket_inside_tls_has_no_findings(ca: CA) -> None:
    with secure(ca) as running:
        seen = ask_inside(running.port, ca)
    assert (codes(seen), connects(seen)) == (set(), [True])


def test_certificate_is_judged_as_browsers_do(ca: CA) -> None:
    with secure(ca, not_before=in_days(-9), not_after=in_days(-2)) as running:
        seen = ask_inside(running.port, ca)
    finding = only(seen)
    assert (finding.code, finding.clients, connects(seen)) == ("PB511", ("browser",), [False])
    assert finding.evidence.endswith("; Chromium says `net::ERR_CERT_DATE_INVALID`")
    with secure(ca) as running:
        assert codes(ask_inside(running.port, None)) & {"PB517", "PB522"}


def test_certificate_for_another_name_is_an_error(ca: CA) -> None:
    with Server(inside(ca.issue("www.example.com"), opening())) as running:
        finding = only(ask_inside(running.port, ca))
    assert finding.code == "PB514"
    assert "--server-name" not in finding.instead


def test_refusal_behind_a_bad_certificate_is_found_too(ca: CA) -> None:
    with Server(
        inside(ca.issue("127.0.0.1", not_before=in_days(-9), not_after=in_days(-1)), refusing("502 Bad Gateway"))
    ) as running:
        assert codes(ask_inside(running.port, ca)) == {"PB511", "PB625"}


def test_old_tls_is_an_error(ca: CA) -> None:
    context = server_context(ca.issue("127.0.0.1"), highest="TLSv1_1")
    with Server(inside(context, opening())) as running:
        finding = only(ask_inside(running.port, ca))
    assert (finding.code, finding.severity) == ("PB532", Severity.ERROR)


def test_browser_offers_http_in_alpn(ca: CA) -> None:
    context = server_context(ca.issue("127.0.0.1"))
    context.set_alpn_protocols(["h2", "http/1.1"])
    chosen = []

    def note(connection: Any) -> None:
        chosen.append(connection.selected_alpn_protocol())
        opening()(connection)

    with Server(inside(context, note)) as running:
        assert codes(ask_inside(running.port, ca)) == set()
    assert set(chosen) == {"http/1.1"}


def test_alpn_that_is_refused_says_what_to_allow(ca: CA) -> None:
    with Server(tls_servers.alert(120)) as running:
        finding = only(ask_inside(running.port, ca))
    assert (finding.code, finding.instead.startswith("allow http/1.1 in ALPN")) == ("PB505", True)


@pytest.mark.parametrize("plain", [opening(), UPGRADE_REQUIRED, refusing("400 Bad Request")])
def test_wss_of_a_plain_port_says_so(plain: Handler, ca: CA) -> None:
    def serve(connection: socket.socket) -> None:
        if connection.recv(1, socket.MSG_PEEK) != b"\x16":
            plain(connection)
        else:
            servers.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")(connection)

    with Server(serve) as running:
        finding = only(ask_inside(running.port, ca))
    assert finding.code == "PB606"
    assert f"write ws://127.0.0.1:{running.port}/chess" in finding.instead


def test_wss_of_a_port_without_either_fails_in_the_handshake(ca: CA) -> None:
    with Server(broken.closing) as running:
        assert codes(ask_inside(running.port, ca)) == {"PB507"}


TO_PLAIN = {
    "an alert": bytes((0x15, 3, 3, 0, 2, 2, 70)),
    "nothing": b"",
    "a hint": b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("case", TO_PLAIN)
def test_ws_of_a_port_with_tls_says_so(case: str, ca: CA) -> None:
    handler = tls_servers.both(ca.issue("127.0.0.1"), opening(), servers.raw(TO_PLAIN[case]))
    with Server(handler) as running:
        finding = only(ask(running.port))
    assert (finding.code, finding.instead) == ("PB607", f"write wss://127.0.0.1:{running.port}/chess")
