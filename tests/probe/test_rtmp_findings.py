"""Each finding about a media server against one that has only this mistake, and none against correct ones."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import broken
import pytest
import rtmp_servers as servers
import tls_servers
from loopback import Handler, Server, closed_port, dropping_port
from loopback import look_at_media as look
from rtmp_servers import BEFORE, Gateway, handshake, http, in_chunks, media, message, refusing, result, sending
from tls_servers import inside

from flashpol.policy.findings import Severity
from flashpol.probe import Observation, experiments, findings
from flashpol.probe.client_models import conclusions
from flashpol.probe.exchange import Address
from flashpol.probe.findings import RULES, Finding
from flashpol.probe.rtmp import amf, tunnel, url
from flashpol.probe.rtmp.url import Way
from testkit.certificates import CA, in_days, make_ca


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "PAUSE", 0.01)


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation)}


def one(observation: Observation, code: str) -> Finding:
    [finding] = [finding for finding in findings.of(observation) if finding.code == code]
    return finding


def connects(observation: Observation) -> list[bool | None]:
    return [conclusion.connects for conclusion in conclusions(observation)]


def rejected(code: str = "NetConnection.Connect.Rejected", **more: str) -> bytes:
    return result("_error", {"level": "error", "code": code, "description": "no", **more})


# ------------------------------------------------------------------------------------------------------- RTMP itself

DIRECT: dict[str, tuple[Handler, set[str]]] = {
    "correct": (media(), set()),
    "correct, a time in S2": (
        media(shake=lambda hello: handshake(hello)[: 1 + 1536] + hello[1:5] + b"time" + hello[9:]), set(),
    ),
    "correct, AMF3": (media(message(17, b"\0" + amf.encode("_result", 1.0, None, servers.SUCCESS))), set()),
    "correct, in large chunks": (
        media(message(1, (4096).to_bytes(4, "big"), 2) + b"\x03" + bytes(3) + (255).to_bytes(3, "big") + b"\x14"
              + bytes(4) + amf.encode("_result", 1.0, None, {**servers.SUCCESS, "x": "y" * 153})),
        set(),
    ),
    "a web server": (sending(http("400 Bad Request", b"", "Server: nginx")), {"PB701", "PB710"}),
    "a web server that says nothing more": (sending(b"HTTP/1.1 400\r\n"), {"PB701", "PB710"}),
    "a policy": (sending(broken.POLICY), {"PB701", "PB711"}),
    "TLS": (sending(bytes((0x15, 3, 3, 0, 2, 2, 70))), {"PB701", "PB711"}),
    "RTMPE": (sending(b"\x06" + bytes(3072)), {"PB701", "PB711"}),
    "an echo": (broken.echo, {"PB701", "PB714"}),
    "silent": (broken.silent, {"PB701", "PB712"}),
    "closes": (lambda connection: connection.recv(4096), {"PB701", "PB713"}),
    "resets": (tls_servers.resetting, {"PB701", "PB713"}),
    "half a handshake": (sending(b"\x03" + bytes(1536)), {"PB701", "PB714"}),
    "half a handshake, and stays": (sending(b"\x03" + bytes(1536), stay=True), {"PB701", "PB714"}),
    "another S2": (media(shake=lambda hello: handshake(hello)[:-1] + b"?"), {"PB715"}),
    "rejects": (media(BEFORE + rejected()), {"PB740"}),
    "a code that is no success": (media(result("_result", {"code": "NetConnection.Connect.AppShutdown"})), {"PB740"}),
    "rejects without a reason": (media(message(20, amf.encode("_error", 1.0, None, None))), {"PB740"}),
    "closes after connect": (media(b"", end=True), {"PB741"}),
    "says close": (media(message(20, amf.encode("close", 0.0, None))), {"PB741"}),
    "no reply to connect": (media(BEFORE), {"PB742"}),
    "a chunk without a header": (media(b"\xc3x"), {"PB743"}),
    "a message of 16 MB": (media(b"\x03\0\0\0\xff\xff\xff\x14" + bytes(4)), {"PB743"}),
    "a message within another": (media(b"\x03\0\0\0\0\1\0\x14" + bytes(4 + 128) + b"\x03" + bytes(11)), {"PB743"}),
    "no AMF": (media(message(20, b"\x07\x07")), {"PB743"}),
    "AMF that ends early": (media(message(20, b"\x02\xff\xffx")), {"PB743"}),
    "AMF that nests": (media(message(20, b"\x03\0\1x" * 5000)), {"PB743"}),
    "AMF of many values": (media(message(20, b"\x0a\0\0\x13\x88" + b"\x05" * 5000)), {"PB743"}),
    "a chunk size of 0": (media(message(1, bytes(4), 2)), {"PB743"}),
}  # fmt: skip


@pytest.mark.parametrize("case", DIRECT)
def test_findings_about_rtmp_are_expected(case: str) -> None:
    handler, expected = DIRECT[case]
    with Server(handler) as running:
        seen = look(f"127.0.0.1:{running.port}", "live")
    assert codes(seen) == expected
    errors = any(finding.severity is Severity.ERROR for finding in findings.of(seen))
    assert connects(seen) == [not errors]


def test_handshake_without_an_application_is_enough() -> None:
    with Server(media(b"", end=True)) as running:
        seen = look(f"rtmp://127.0.0.1:{running.port}")
    assert (codes(seen), connects(seen)) == (set(), [True])


def test_redirect_of_the_server_says_where_to_connect() -> None:
    inner = amf.encode({"code": 302.0, "redirect": "rtmp://b.example/live"})
    info = amf.encode({"code": "NetConnection.Connect.Rejected"})[:-3] + b"\0\2ex" + inner + b"\0\0\x09"
    with Server(media(message(20, amf.encode("_error", 1.0, None) + info))) as running:
        finding = one(look(f"127.0.0.1:{running.port}", "live"), "PB740")
    assert finding.instead == "let the content connect to rtmp://b.example/live, where the server sends it"


@pytest.mark.parametrize("flood", [b"\0", b"\x02\0\0\0\0\0\0\x14\0\0\0\0", bytes(range(256)) * 100], ids=str)
def test_flood_after_the_handshake_ends(flood: bytes) -> None:
    def handle(connection: socket.socket) -> None:
        hello = servers.exactly(connection, 1537)
        connection.sendall(handshake(hello))
        while True:
            connection.sendall(flood * 1000)

    with Server(handle) as running:
        seen = look(f"127.0.0.1:{running.port}", "live")
    [target] = seen.all_targets()
    assert target.asked.ended < 5
    assert codes(seen) & {"PB741", "PB742", "PB743"}


# ------------------------------------------------------------------------------------------------------------ tunnels

Made = Callable[[int], Handler]
CHUNKED = "Transfer-Encoding: chunked"


def closing(*fields: str, version: str = "HTTP/1.1") -> Made:
    """Each reply has these fields, and FIN follows."""
    return lambda port: Gateway(
        port, reply=lambda body: http("200 OK", body, *fields, version=version), then=lambda count: False
    )


def answering(reply: bytes) -> Made:
    return lambda port: refusing(reply)


HTML = "Content-Type: text/html"
TUNNELS: dict[str, tuple[Made, set[str]]] = {
    "correct": (Gateway, set()),
    "an id of 31": (lambda port: Gateway(port, identifier=b"x" * 31 + b"\n"), set()),
    "closes each": (closing("Connection: close"), {"PB730"}),
    "closes each, without saying so": (closing(), {"PB730"}),
    "HTTP/1.0": (closing(version="HTTP/1.0"), {"PB730"}),
    "until the end": (
        lambda port: Gateway(port, reply=lambda body: b"HTTP/1.0 200 OK\r\n\r\n" + body, then=lambda count: False),
        {"PB730"},
    ),
    "HTTP/1.0 that keeps": (
        lambda port: Gateway(port, reply=lambda b: http("200 OK", b, "Connection: keep-alive", version="HTTP/1.0")),
        set(),
    ),
    "closes sometimes": (lambda port: Gateway(port, then=lambda count: count < 2), {"PB731"}),
    "lower case": (
        lambda port: Gateway(port, reply=lambda body: http("200 OK", body, f"content-length: {len(body)}")),
        {"PB732"},
    ),
    "chunked": (lambda port: Gateway(port, reply=in_chunks), {"PB733"}),
    "empty": (lambda port: Gateway(port, empty=b""), {"PB734"}),
    "no newline": (lambda port: Gateway(port, identifier=b"A0bcdefghijklmno"), {"PB735"}),
    "404": (answering(http("404 Not Found")), {"PB701", "PB720"}),
    "a denial of squid": (answering(http("403 No", b"", "X-Squid-Error: ERR_ACCESS_DENIED 0")), {"PB701", "PB728"}),
    "405": (answering(http("405 Method Not Allowed", b"no", "Allow: GET")), {"PB701", "PB720"}),
    "a page": (answering(http("200 OK", b"<html>hello</html>", HTML)), {"PB701", "PB721"}),
    "a short page": (answering(http("200 OK", b"welcome", HTML)), {"PB701", "PB721"}),
    "a long id": (answering(http("200 OK", b"x" * 32)), {"PB701", "PB721"}),
    "an empty id": (answering(http()), {"PB701", "PB721"}),
    "an id with a slash": (answering(http("200 OK", b"a/b\n")), {"PB701", "PB721"}),
    "502": (answering(http("502 Bad Gateway")), {"PB701", "PB722"}),
    "503, chunked": (answering(http("503 No", b"2\r\nno\r\n0\r\n\r\n", CHUNKED)), {"PB701", "PB722"}),
    "407": (answering(http("407 Proxy Authentication Required")), {"PB701", "PB723"}),
    "302": (answering(http("302 Found", b"", "Location: https://a.example/")), {"PB701", "PB724"}),
    "half a head": (lambda port: sending(b"HTTP/1.1 200 OK\r\nServer:"), {"PB701", "PB725"}),
    "half a body": (lambda port: sending(http("200 OK", b"A0", "Content-Length: 20")), {"PB701", "PB725"}),
    "two lengths": (
        lambda port: sending(http("200 OK", b"A0\n", "Content-Length: 3", "Content-Length: 3")), {"PB701", "PB725"},
    ),
    "1xx without end": (lambda port: sending(b"HTTP/1.1 100 Continue\r\n\r\n" * 9), {"PB701", "PB725"}),
    "RTMP": (lambda port: media(), {"PB701", "PB712"}),
    "not HTTP": (lambda port: sending(b"220 hello\r\n"), {"PB701", "PB711"}),
    "silent": (lambda port: broken.silent, {"PB701", "PB712"}),
    "closes": (lambda port: lambda connection: connection.recv(4096), {"PB701", "PB713"}),
    "loses the session": (lambda port: Gateway(port, lose_after=1), {"PB701", "PB726"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TUNNELS)
def test_findings_about_tunnel_are_expected(case: str) -> None:
    made, expected = TUNNELS[case]
    with Server(media()) as behind, Server(made(behind.port)) as running:
        seen = look(f"rtmpt://127.0.0.1:{running.port}/live")
    assert codes(seen) == expected
    assert connects(seen) == ["PB701" not in expected]


BEHIND: dict[str, tuple[Handler, set[str]]] = {
    "rejects": (media(rejected()), {"PB740"}),
    "closes for the application": (media(b"", end=True), {"PB741"}),
    "another protocol": (sending(b"220 hello\r\n", stay=True), {"PB701", "PB727"}),
    "silent": (broken.silent, {"PB701", "PB727"}),
    "half a handshake": (sending(b"\x03" + bytes(100), stay=True), {"PB701", "PB727"}),
    "no reply to connect": (media(BEFORE), {"PB742"}),
}


@pytest.mark.parametrize("case", BEHIND)
def test_findings_about_server_behind_a_tunnel_are_expected(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "MAX_POLLS", 5)
    handler, expected = BEHIND[case]
    with Server(handler) as behind, Server(Gateway(behind.port)) as running:
        seen = look(f"rtmpt://127.0.0.1:{running.port}/live")
    assert codes(seen) == expected


@pytest.mark.parametrize(("application", "expected"), [("", {"PB701", "PB726"}), ("live", {"PB741"})])
def test_session_that_is_lost_after_the_handshake_is_found(application: str, expected: set[str]) -> None:
    """With an application it looks as if the server closed the session because of it, and the evidence says how."""
    carried: list[bytes] = []

    def reply(body: bytes) -> bytes:
        if carried:
            return http("404 Not Found")
        if len(body) > 3000:
            carried.append(body)
        return http(body=body)

    with Server(media()) as behind, Server(Gateway(behind.port, reply=reply)) as running:
        seen = look(f"rtmpt://127.0.0.1:{running.port}", application)
    assert codes(seen) == expected
    assert any("404 Not Found" in finding.message + finding.evidence for finding in findings.of(seen))


def test_poll_that_is_not_held_is_a_note() -> None:
    with Server(media()) as behind, Server(Gateway(behind.port, hold=0)) as running:
        finding = one(look(f"rtmpt://127.0.0.1:{running.port}/live", ignored=frozenset()), "PB736")
    assert (finding.severity, finding.clients) == (Severity.NOTE, ("rtmpdump",))


def test_tunnel_that_closes_names_the_clients_that_fail() -> None:
    made = closing("Connection: close", "Via: 1.1 host (tinyproxy/1.11.1)")
    with Server(media()) as behind, Server(made(behind.port)) as running:
        seen = look(f"rtmpt://127.0.0.1:{running.port}/live")
    finding = one(seen, "PB730")
    assert (finding.severity, finding.clients) == (Severity.WARNING, ("ffmpeg", "rtmpdump"))
    assert "tinyproxy closes each connection" in finding.instead
    assert "Connection: close" in finding.evidence
    [conclusion] = conclusions(seen)
    assert conclusion.reason.endswith("connections")


def test_refusal_of_open_names_the_lines_that_the_program_needs() -> None:
    hints = {"nginx/1.22.1": "proxy_pass http://HOST:PORT", "Apache/2.4.66": "ProxyPassMatch", "Apache-Coyote/1.1": ""}
    for server, hint in hints.items():
        with Server(refusing(http("404 Not Found", b"", f"Server: {server}"))) as running:
            finding = one(look(f"rtmpt://127.0.0.1:{running.port}"), "PB720")
        assert hint in finding.instead
        assert f"Server: {server}" in finding.evidence


def test_proxy_is_sent_absolute_urls_and_asked_for_nothing_else() -> None:
    with Server(media()) as behind:
        gateway = Gateway(behind.port)
        with Server(gateway) as running:
            seen = look("media.invalid", "live", proxy=f"http://127.0.0.1:{running.port}")
    assert (codes(seen), connects(seen)) == (set(), [True])
    assert gateway.lines[0] == "POST http://media.invalid/open/1 HTTP/1.1"
    assert gateway.lines[-1].startswith("POST http://media.invalid/close/A0bcdefghijklmno/")
    assert [str(target.way) for target in seen.all_targets()] == ["RTMPT on port 80"]


def test_refusal_of_the_proxy_is_not_taken_for_that_of_a_server() -> None:
    with Server(refusing(http("403 Forbidden"))) as running:
        seen = look("media.invalid", proxy=f"http://127.0.0.1:{running.port}")
        assert codes(look(f"rtmpt://127.0.0.1:{running.port}")) == {"PB701", "PB720"}
    assert codes(seen) == {"PB701", "PB728"}


def test_unknown_proxy_is_named() -> None:
    assert one(look("127.0.0.1", proxy="http://proxy.invalid:3128"), "PB101").message.startswith("proxy.invalid has")


def test_endless_body_ends() -> None:
    def handle(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1\r\nx\r\n" * 1000)

    with Server(handle) as running:
        seen = look(f"rtmpt://127.0.0.1:{running.port}")
    assert codes(seen) == {"PB701", "PB725"}
    assert seen.seconds < 8


def test_tunnel_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "WHOLE", 0.5)
    with Server(broken.silent) as behind, Server(Gateway(behind.port)) as running:
        seen = look(f"rtmpt://127.0.0.1:{running.port}", "live")
    assert codes(seen) & {"PB726", "PB727"}
    assert seen.seconds < 5


# ----------------------------------------------------------------------------------------------------------- fallback


@contextlib.contextmanager
def ways(monkeypatch: pytest.MonkeyPatch, *handlers: Handler | None) -> Iterator[list[int]]:
    """Ports for RTMP in the place of 1935, 443 and 80, and one for RTMPT. None is a closed port."""
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(closed_port() if handler is None else Server(handler)) for handler in handlers]
        numbers = [one if isinstance(one, int) else one.port for one in ports]
        schemes = ("rtmp", "rtmp", "rtmp", "rtmpt")
        monkeypatch.setitem(url.WAYS, "rtmp", tuple(map(Way, schemes, numbers)))
        yield numbers


def test_every_way_is_tried_and_the_first_that_works_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    web = sending(http("400 Bad Request"))
    with Server(media()) as behind, ways(monkeypatch, None, web, media(), Gateway(behind.port)) as ports:
        seen = look("127.0.0.1", "live")
    assert codes(seen) == {"PB705", "PB710"}
    [conclusion] = conclusions(seen)
    assert conclusion.connects
    assert conclusion.reason == f"RTMP on port {ports[2]} works"
    assert conclusion.story == (
        f"RTMP on port {ports[0]} refuses the connection",
        f"RTMP on port {ports[1]} replies with HTTP 400 Bad Request: a web server",
    )
    assert [target.port for target in seen.all_targets()] == ports


def test_server_without_a_tunnel_keeps_users_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with ways(monkeypatch, media(), None, None, refusing(http("404 Not Found"))):
        seen = look("127.0.0.1")
    assert codes(seen) == {"PB704", "PB705", "PB720"}
    assert connects(seen) == [True]


def test_only_the_tunnel_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(media()) as behind, ways(monkeypatch, None, None, None, Gateway(behind.port)) as ports:
        seen = look("127.0.0.1")
    assert codes(seen) == {"PB705"}
    assert conclusions(seen)[0].reason == f"RTMPT on port {ports[3]} works"


def test_dropped_port_costs_what_windows_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with dropping_port() as dropped, Server(media()) as running:
        monkeypatch.setitem(url.WAYS, "rtmp", (Way("rtmp", dropped), Way("rtmp", running.port)))
        seen = look("127.0.0.1")
    assert codes(seen) == {"PB703", "PB706"}
    assert one(seen, "PB703").message.startswith("Flash Player reaches the media server after some 21 s")
    assert 21 < (conclusions(seen)[0].waits or 0) < 25


def test_address_without_a_way_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [Address(socket.AF_INET, "127.0.0.1"), Address(socket.AF_INET, "127.0.0.2")]
    monkeypatch.setattr(experiments, "resolve", lambda host: both)
    with Server(media()) as running:
        seen = look(f"games.example.com:{running.port}")
    assert codes(seen) == {"PB702", "PB705"}
    assert one(seen, "PB702").where == f"127.0.0.2:{running.port}"


def test_unreachable_network_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from flashpol.probe import exchange

    monkeypatch.setattr(exchange, "_connect", lambda *_: (exchange.Reached.UNREACHABLE, "No route to host"))
    assert codes(look("127.0.0.1:1")) == {"PB701", "PB707"}


def test_machine_without_a_route_knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from flashpol.probe import exchange

    monkeypatch.setattr(exchange, "_connect", lambda *_: (exchange.Reached.UNTRIED, "Network is unreachable"))
    seen = look("127.0.0.1:1")
    assert (codes(seen), connects(seen)) == ({"PB104"}, [None])


# ---------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CA:
    return make_ca(tmp_path_factory.mktemp("ca"))


def test_rtmp_inside_tls_works(ca: CA) -> None:
    with Server(inside(ca.issue("127.0.0.1"), media())) as running:
        seen = look(f"rtmps://127.0.0.1:{running.port}/live", ca=str(ca.file))
    assert (codes(seen), connects(seen)) == (set(), [True])


def test_tunnel_inside_tls_works(ca: CA) -> None:
    with Server(media()) as behind, Server(inside(ca.issue("127.0.0.1"), Gateway(behind.port))) as running:
        seen = look(f"rtmpts://127.0.0.1:{running.port}/live", ca=str(ca.file))
    assert (codes(seen), connects(seen)) == (set(), [True])


@pytest.mark.parametrize("scheme", ["rtmps", "rtmpts"])
def test_certificate_is_judged_and_the_way_fails(scheme: str, ca: CA) -> None:
    files = ca.issue("127.0.0.1", not_before=in_days(-9), not_after=in_days(-2))
    with Server(media()) as behind:
        served: Handler = media() if scheme == "rtmps" else Gateway(behind.port)
        with Server(inside(files, served)) as running:
            seen = look(f"{scheme}://127.0.0.1:{running.port}/live", ca=str(ca.file))
    assert codes(seen) == {"PB511", "PB701"}
    assert connects(seen) == [False]


def test_port_without_tls_says_so(ca: CA) -> None:
    with Server(sending(http("400 Bad Request"))) as running:
        assert codes(look(f"rtmps://127.0.0.1:{running.port}", ca=str(ca.file))) == {"PB508", "PB701"}


def test_every_finding_about_rtmp_has_a_test() -> None:
    by_name = {"PB702", "PB703", "PB704", "PB705", "PB706", "PB707", "PB736"}
    tried = by_name.union(*(expected for cases in (DIRECT, TUNNELS, BEHIND) for _, expected in cases.values()))
    assert {rule.code for rule in RULES if rule.code.startswith("PB7")} == tried
