"""Findings about WebSocket paths: those that let no page in, and those that let every page in."""

import dataclasses
import logging
from typing import Any

import pytest

from flashpol.config import (
    Address,
    Config,
    ConfigError,
    Listener,
    PolicySource,
    ProtocolUpstreams,
    Server,
    UpstreamAddress,
    WebSocketPath,
)
from flashpol.policy import allow_policy, render
from flashpol.serving.policies import compile_all
from flashpol.serving.websocket_findings import find, require_zlib, warn_all

OTHER_PATHS = "requests for other paths than those of its WebSockets are relayed to the same application"


def findings(grants: str | bytes, *paths: WebSocketPath, address: str = "0.0.0.0:7000") -> list[str]:
    policy = grants if isinstance(grants, bytes) else render(allow_policy(grants.split()))
    return [text for text in find(listener(*paths, address=address), policy) if not text.startswith(OTHER_PATHS)]


def listener(*paths: WebSocketPath, address: str = "0.0.0.0:7000") -> Listener:
    upstream = (UpstreamAddress("127.0.0.1", 7001),)
    return Listener(None, Address.parse(address), "games", upstream=upstream, websocket=paths)


@pytest.mark.parametrize(
    ("grants", "path"),
    [
        ("*.example.com:7000", WebSocketPath("*")),
        ("*:6000-8000", WebSocketPath("*")),
        ("a.example:1 b.example:7001", WebSocketPath("/a", port=7001)),
        ("a.example:1", WebSocketPath("/a", origins=("https://a.example",))),
    ],
)
def test_path_that_some_page_may_use_has_no_finding(grants: str, path: WebSocketPath) -> None:
    assert findings(grants, path) == []


def test_secure_grant_is_one_for_pages_over_https() -> None:
    grant = b'<allow-access-from domain="a.example" to-ports="7000" secure="true"/>'
    policy = b"<cross-domain-policy>" + grant + b"</cross-domain-policy>"
    assert findings(policy, WebSocketPath("*")) == []


def test_port_without_a_grant_is_a_finding_that_names_it() -> None:
    [found] = findings("*:843", WebSocketPath("*"))
    assert found.startswith(
        'WebSocket on every path is refused to every page: the policy "games" grants nothing on port 7000: grant it, '
        "or set the port "
    )
    [found] = findings("*:7000", WebSocketPath("/a", port=7001), WebSocketPath("/b"))
    assert found.startswith('the WebSocket path /a is refused to every page: the policy "games" grants nothing on port')


def test_grant_that_the_port_of_the_listener_makes_void_is_a_finding() -> None:
    [found] = findings("*:80", WebSocketPath("/a", port=80))
    assert "a policy served from port 7000 cannot grant port 80" in found


def test_port_that_the_kernel_chooses_is_unknown_and_no_finding() -> None:
    assert findings("*:843", WebSocketPath("*"), address="127.0.0.1:0") == []
    assert len(findings("*:843", WebSocketPath("*", port=7000), address="127.0.0.1:0")) == 1


def test_any_origin_is_a_finding() -> None:
    [found] = findings("*:843", WebSocketPath("/a", origins="any"))
    assert found.startswith('the WebSocket path /a has origins = "any", so every web page may connect')


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        ((WebSocketPath("/a"),), True),
        ((WebSocketPath("/a", (UpstreamAddress("127.0.0.1", 7001),)),), True),
        ((WebSocketPath("/a"), WebSocketPath("*")), False),
        ((WebSocketPath("/a", (UpstreamAddress("127.0.0.1", 7002),)),), False),  # the upstream is a web server
        ((), False),
    ],
)
def test_application_that_other_paths_reach_without_an_origin_is_a_finding(
    paths: tuple[WebSocketPath, ...], found: bool
) -> None:
    texts = find(listener(*paths), render(allow_policy(["*:7000"])))
    assert any(text.startswith(OTHER_PATHS) for text in texts) is found


GAME = (UpstreamAddress("127.0.0.1", 7001),)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"other_http": "refuse"}, False),
        ({"upstreams": ProtocolUpstreams(http=(UpstreamAddress("127.0.0.1", 8080),))}, False),
        ({"upstreams": ProtocolUpstreams(rtmp=(UpstreamAddress("127.0.0.1", 1936),))}, True),
        ({"upstream": (), "upstreams": ProtocolUpstreams(http=GAME)}, True),
        ({"upstream": (), "upstreams": ProtocolUpstreams(rtmp=GAME)}, False),
    ],
)
def test_application_that_other_http_does_not_reach_is_no_finding(settings: dict[str, Any], found: bool) -> None:
    made = dataclasses.replace(listener(WebSocketPath("/a", GAME)), **settings)
    texts = [text for text in find(made, render(allow_policy(["*:7000"]))) if text.startswith(OTHER_PATHS)]
    assert bool(texts) is found
    assert all('set other_http = "refuse", or add a table with path = "*"' in text for text in texts)


def test_what_is_no_policy_has_no_finding_here() -> None:
    assert findings(b"<html>", WebSocketPath("*")) == []


def test_findings_are_logged_as_warnings_with_their_listener(caplog: pytest.LogCaptureFixture) -> None:
    made = Config(Server(), (PolicySource("games", grants=("*:8000",)),), (listener(WebSocketPath("*")),))
    with caplog.at_level(logging.WARNING, "flashpol"):
        warn_all(made, compile_all(made))
    [record] = [each for each in caplog.records if getattr(each, "event", "") == "websocket-warning"]
    assert record.__dict__["listener"] == "0.0.0.0:7000"
    assert record.getMessage().startswith("listener 0.0.0.0:7000: WebSocket on every path is refused")


def test_compression_in_a_build_without_zlib_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    compressing, plain = (
        Config(Server(), (), (listener(WebSocketPath("/a"), WebSocketPath("/b", compression=compression)),))
        for compression in (True, False)
    )
    require_zlib(compressing)
    monkeypatch.setattr("flashpol._websocket.COMPRESSES", False)
    with pytest.raises(ConfigError, match=r"^compression needs zlib, .*zlib1g-dev.*build again, `pip install"):
        require_zlib(compressing)
    require_zlib(plain)
