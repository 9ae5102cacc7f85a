"""What a listener's rules say of a request."""

import pytest

from flashpol._fastpath import RequestHead
from flashpol.config import Address, Listener, ProtocolUpstreams, UpstreamAddress, WebSocketPath
from flashpol.gateway.requests import Gateway, Reply, Upgrade
from flashpol.gateway.url_policies import UrlReplies

POLICY = b"""<cross-domain-policy>
<allow-access-from domain="*.example.com" to-ports="7000,7001"/>
</cross-domain-policy>\0"""
UPSTREAM = (UpstreamAddress("127.0.0.1", 9),)
UPGRADE = (
    b"Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
ALLOWED = b"Origin: https://www.example.com\r\n"


def gateway(*paths: WebSocketPath, shared: bool = True, files: dict[str, bytes] | None = None) -> Gateway:
    listener = Listener("games", Address("127.0.0.1", 7000), "p", upstream=UPSTREAM if shared else (), websocket=paths)
    return Gateway(listener, POLICY, 7000, UrlReplies(files) if files else None)


def head(line: bytes, fields: bytes = UPGRADE + ALLOWED) -> RequestHead:
    return RequestHead.parse(line + b"\r\n" + fields + b"\r\n")


EVERY = WebSocketPath("*")
CHESS, ARENA = WebSocketPath("/chess", UPSTREAM, 7001), WebSocketPath("/arena", UPSTREAM, 7009)


def result(decision: Reply | Upgrade | None) -> tuple[object, ...]:
    """Path, status, outcome and result."""
    if isinstance(decision, Reply):
        return decision.path, int(decision.data[9:12]), decision.outcome, decision.result
    return (decision.path if decision else None,)


@pytest.mark.parametrize("target", [b"/", b"/x?y=/chess", b"http://games.example.com/x", b"/%2e%2e"])
def test_upgrade_at_any_path_leads_to_the_path_for_all(target: bytes) -> None:
    assert result(gateway(EVERY).decide(head(b"GET " + target + b" HTTP/1.1"))) == (0,)


@pytest.mark.parametrize(
    ("target", "number"), [(b"/chess", 0), (b"/chess?a", 0), (b"/arena", 1), (b"/chess/", 2), (b"/Chess", 2)]
)
def test_upgrade_at_a_path_leads_to_its_own(target: bytes, number: int) -> None:
    decision = gateway(CHESS, ARENA, EVERY).decide(head(b"GET " + target + b" HTTP/1.1"))
    assert decision
    assert decision.path == number


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (UPGRADE + b"Origin: https://evil.test\r\n", (0, 403, "origin", "origin")),
        (UPGRADE + b"Origin: null\r\n", (0, 403, "origin", "origin")),
        (UPGRADE, (0, 403, "origin", "no_origin")),
        (UPGRADE + ALLOWED + ALLOWED, (0, 400, "http_malformed", "malformed")),
        (UPGRADE + b"Origin: www.example.com\r\n", (0, 400, "http_malformed", "malformed")),
        (UPGRADE.replace(b"13", b"8") + ALLOWED, (0, 426, "http_malformed", "malformed")),
        (b"Host: h\r\n" + ALLOWED, (0, 426, "http", "no_upgrade")),
        (b"Host: h\r\nContent-Length: 5\r\n" + ALLOWED, (0, 426, "http", "no_upgrade")),
    ],
)
def test_upgrade_that_is_refused_says_why(fields: bytes, expected: tuple[object, ...]) -> None:
    decision = gateway(EVERY).decide(head(b"GET / HTTP/1.1", fields))
    assert result(decision) == expected
    assert isinstance(decision, Reply)
    assert decision.reason


def test_refusal_by_the_policy_names_origin_port_and_line() -> None:
    decision = gateway(ARENA).decide(head(b"GET /arena HTTP/1.1"))
    assert isinstance(decision, Reply)
    assert decision.origin == "https://www.example.com"
    for part in ("https://www.example.com", "7009", "7000,7001"):
        assert part in decision.reason
    assert decision.line == 2
    assert decision.reason.encode() in decision.data


@pytest.mark.parametrize(
    ("line", "fields", "part"),
    [
        (b"GET / HTTP/1.1", UPGRADE.replace(b"13", b"8"), "version 13"),
        (b"GET / HTTP/1.1", UPGRADE.replace(b"dGhl", b""), "Sec-WebSocket-Key"),
        (b"GET / HTTP/1.0", UPGRADE, "HTTP/1.0"),
        (b"GET / HTTP/1.1", b"Host: h\r\n", "does not ask"),
    ],
)
def test_refused_handshake_has_a_reason_of_its_own(line: bytes, fields: bytes, part: str) -> None:
    decision = gateway(EVERY).decide(head(line, fields + ALLOWED))
    assert isinstance(decision, Reply)
    assert part in decision.reason


def test_upgrade_in_http_1_0_is_426() -> None:
    assert result(gateway(EVERY).decide(head(b"GET / HTTP/1.0"))) == (0, 426, "http", "no_upgrade")


@pytest.mark.parametrize("paths", [(), (CHESS,)])
def test_head_request_gets_no_body(paths: tuple[WebSocketPath, ...]) -> None:
    decision = gateway(*paths, shared=False).decide(head(b"HEAD /chess HTTP/1.1"))
    assert isinstance(decision, Reply)
    assert decision.data.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in decision.data


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS", b"DELETE"])
def test_other_method_at_a_websocket_path_is_405(method: bytes) -> None:
    decision = gateway(EVERY).decide(head(method + b" / HTTP/1.1"))
    assert result(decision) == (0, 405, "http", "no_upgrade")
    assert isinstance(decision, Reply)
    assert b"\r\nAllow: GET\r\n" in decision.data


def test_unknown_path_of_a_shared_port_is_relayed() -> None:
    assert gateway(CHESS).decide(head(b"GET / HTTP/1.1")) is None
    assert gateway(CHESS).decide(head(b"POST /chess/ HTTP/1.1")) is None


WEB = ProtocolUpstreams(http=UPSTREAM)


@pytest.mark.parametrize(
    ("settings", "relayed"),
    [
        ({"upstream": UPSTREAM}, True),
        ({"upstream": UPSTREAM, "other_http": "refuse"}, False),
        ({"upstreams": WEB}, True),
        ({"upstream": UPSTREAM, "upstreams": WEB}, True),
        ({"upstreams": ProtocolUpstreams(rtmp=UPSTREAM)}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"POST /chess/ HTTP/1.1"])
def test_unknown_path_is_relayed_where_http_has_an_upstream_and_is_not_refused(
    line: bytes, settings: dict[str, object], relayed: bool
) -> None:
    listener = Listener("games", Address("127.0.0.1", 7000), "p", websocket=(CHESS,), **settings)  # type: ignore[arg-type]
    decision = Gateway(listener, POLICY, 7000).decide(head(line, b"Host: h\r\nContent-Length: 0\r\n"))
    assert result(decision) == ((None,) if relayed else (None, 404, "http", ""))


def test_refused_upgrade_of_an_unknown_path_says_so() -> None:
    listener = Listener(
        "games", Address("127.0.0.1", 7000), "p", upstream=UPSTREAM, websocket=(CHESS,), other_http="refuse"
    )
    decision = Gateway(listener, POLICY, 7000).decide(head(b"GET /ches HTTP/1.1"))
    assert isinstance(decision, Reply)
    assert decision.reason == 'there is no path "/ches"'


def test_unknown_path_of_another_listener_is_404() -> None:
    decision = gateway(CHESS, shared=False).decide(head(b"GET /ches HTTP/1.1"))
    assert result(decision) == (None, 404, "http", "")
    assert isinstance(decision, Reply)
    assert decision.reason == 'there is no path "/ches"'
    plain = gateway(CHESS, shared=False).decide(head(b"GET /favicon.ico HTTP/1.1", b"Host: h\r\n"))
    assert isinstance(plain, Reply)
    assert plain.reason == ""


def test_policy_file_is_served_before_a_path_for_all() -> None:
    rules = gateway(EVERY, files={"/crossdomain.xml": b"<cross-domain-policy/>"})
    served = rules.decide(head(b"GET /crossdomain.xml?x HTTP/1.0", b""))
    assert result(served) == (None, 200, "served", "")
    assert isinstance(served, Reply)
    assert served.data.endswith(b"<cross-domain-policy/>")
    assert result(rules.decide(head(b"POST /crossdomain.xml HTTP/1.1"))) == (None, 405, "http", "")
    assert result(rules.decide(head(b"GET / HTTP/1.1"))) == (0,)


@pytest.mark.parametrize(("compression", "agreed"), [(True, True), (False, False)])
def test_compression_is_agreed_on_where_the_path_has_it(compression: bool, agreed: bool) -> None:
    offer = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    decision = gateway(WebSocketPath("*", compression=compression)).decide(
        head(b"GET / HTTP/1.1", UPGRADE + ALLOWED + offer)
    )
    assert isinstance(decision, Upgrade)
    assert decision.compresses is agreed
    assert (b"Sec-WebSocket-Extensions" in decision.reply) is agreed
