"""What `flashpol decide` says of Ruffle is what the gateway does with the upgrade of that page."""

import pytest

from flashpol._fastpath import RequestHead
from flashpol.config import Address, Listener, UpstreamAddress, WebSocketPath
from flashpol.gateway.decisions import with_gateway
from flashpol.gateway.origins import rule_of
from flashpol.gateway.requests import Gateway, Upgrade
from flashpol.policy import Decider, Decision

POLICY = b"""<cross-domain-policy>
<allow-access-from domain="*.example.com" to-ports="7000,7001"/>
<allow-access-from domain="secure.test" to-ports="*" secure="true"/>
</cross-domain-policy>"""
PATHS = (
    WebSocketPath("/policy"),
    WebSocketPath("/chess", port=7001),
    WebSocketPath("/any", port=80, origins="any"),
    WebSocketPath("/list", port=7002, origins=("https://*.example.com", "http://localhost:8080", "app://games")),
)
LISTENER = Listener(
    "games", Address("127.0.0.1", 7000), "p", upstream=(UpstreamAddress("127.0.0.1", 9),), websocket=PATHS
)
UPGRADE = (
    b"Host: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: "
)


def decide(content: str, port: int, *, clients: tuple[str, ...] = ("ruffle",), listener: Listener | None = LISTENER,
           sandbox: str | None = None) -> list[Decision]:  # fmt: skip
    decisions = Decider(POLICY, clients).decide(content, port, served_from=7000, sandbox=sandbox)
    return with_gateway(
        decisions, listener, "games", content, port, lambda path: rule_of(LISTENER, path, POLICY), sandbox
    )


@pytest.mark.parametrize(
    ("content", "origin"),
    [
        ("https://www.example.com/game.swf?a#b", b"https://www.example.com"),
        ("HTTPS://WWW.example.com:443/", b"https://www.example.com"),
        ("http://www.example.com:8080", b"http://www.example.com:8080"),
        ("http://localhost:8080/x", b"http://localhost:8080"),
        ("https://localhost", b"https://localhost"),
        ("https://secure.test", b"https://secure.test"),
        ("http://secure.test", b"http://secure.test"),
        ("http://www.example.com.", b"http://www.example.com."),
        ("http://[::1]:80/", b"http://[::1]"),
        ("http://192.0.2.1/", b"http://192.0.2.1"),
        ("null", b"null"),
        ("file:///home/game.swf", b"null"),
        ("app://games/index.html", b"app://games"),
        ("chrome-extension://abcdef/x.html", b"chrome-extension://abcdef"),
    ],
)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.path)
def test_decision_is_what_the_gateway_does(content: str, origin: bytes, path: WebSocketPath) -> None:
    head = RequestHead.parse(b"GET " + path.path.encode() + b" HTTP/1.1\r\n" + UPGRADE + origin + b"\r\n\r\n")
    done = Gateway(LISTENER, POLICY + b"\0", 7000).decide(head)
    port = LISTENER.port_of(path)
    assert port
    [decision] = decide(content, port)
    assert decision.allowed is isinstance(done, Upgrade)
    assert isinstance(done, Upgrade) or decision.reason.endswith(done.reason)  # type: ignore[union-attr]


def test_decision_without_websocket_denies_and_leaves_other_clients_alone() -> None:
    flash, ruffle = decide("http://www.example.com/", 7000, clients=("flash", "ruffle"), listener=None)
    assert (flash.client, flash.allowed, ruffle.allowed) == ("flash", True, False)
    assert ruffle.reason == "no WebSocket path of listener games is for port 7000: it has no websocket"


@pytest.mark.parametrize(
    ("content", "sandbox", "reason"),
    [("app:/Main.swf", None, "ruffle runs no air-application content"), ("file:///x", "ruffle-desktop", "no policy")],
)
def test_decision_about_content_outside_a_page_is_not_the_gateways(
    content: str, sandbox: str | None, reason: str
) -> None:
    [decision] = decide(content, 9999, sandbox=sandbox)
    assert decision.reason.startswith(reason)


def test_decision_of_a_domain_needs_both_schemes() -> None:
    assert decide("www.example.com", 7000)[0].allowed
    for content, port, refused in (("secure.test", 7001, "http:"), ("www.example.com", 7002, "http:")):
        [decision] = decide(content, port)
        assert not decision.allowed
        assert f'Origin "{refused}' in decision.reason
        assert f"https://{content} may: " in decision.reason
