"""Upstreams by protocol: the table, what it means for each protocol, and the one-line error for each mistake."""

from pathlib import Path

import pytest

from flashpol import config
from flashpol._fastpath import PROTOCOLS
from flashpol.config import (
    Config,
    ConfigError,
    Listener,
    ProtocolUpstreams,
    UpstreamAddress,
    WebSocketPath,
    settings_of,
)

START = """[policies.p]
grants = [{domain = "*", ports = 7000}]
[[listeners]]
address = "127.0.0.1:7000"
"""
GAME, MEDIA, WEB = (UpstreamAddress("127.0.0.1", port) for port in (7001, 1936, 8080))


def read(folder: Path, text: str) -> Config:
    path = folder / "f.toml"
    path.write_text(START + text)
    return config.check(config.load(path))


def listener(folder: Path, text: str) -> Listener:
    return read(folder, text).listeners[0]


TABLE = '[listeners.upstreams]\nrtmp = "127.0.0.1:1936"\nhttp = ["127.0.0.1:8080", "127.0.0.1:7001"]\n'


def test_table_names_upstreams_by_protocol_and_the_rest_goes_to_upstream(tmp_path: Path) -> None:
    found = listener(tmp_path, 'upstream = "127.0.0.1:7001"\n' + TABLE)
    assert found.upstreams == ProtocolUpstreams(rtmp=(MEDIA,), http=(WEB, GAME))
    expected = dict.fromkeys(PROTOCOLS, (GAME,)) | {"rtmp": (MEDIA,), "rtmpt": (MEDIA,), "http": (WEB, GAME)}
    assert {protocol: found.upstream_for(protocol) for protocol in (*PROTOCOLS, "rtmpt")} == expected
    assert found.all_upstreams == (GAME, MEDIA, WEB), "each once, its own first"
    assert found.shared
    assert found.relays


def test_inline_table_is_a_table_too(tmp_path: Path) -> None:
    assert listener(tmp_path, 'upstreams = {tls = "127.0.0.1:7001"}').upstreams == ProtocolUpstreams(tls=(GAME,))


def test_table_belongs_to_the_listener_above(tmp_path: Path) -> None:
    text = TABLE + '[[listeners]]\naddress = "127.0.0.1:8000"\nupstream = "127.0.0.1:7001"'
    first, second = read(tmp_path, text).listeners
    assert first.upstreams.named
    assert not second.upstreams.named


def test_table_without_upstream_leaves_the_other_protocols_without_one(tmp_path: Path) -> None:
    found = listener(tmp_path, TABLE)
    assert {protocol for protocol in (*PROTOCOLS, "rtmpt") if found.upstream_for(protocol)} == {"http", "rtmp", "rtmpt"}
    assert found.shared
    assert found.relays


def test_empty_table_is_none(tmp_path: Path) -> None:
    found = listener(tmp_path, "[listeners.upstreams]")
    assert (found.shared, found.relays, found.all_upstreams) == (False, False, ())


def test_keys_are_names_of_protocols() -> None:
    assert set(settings_of(ProtocolUpstreams)) < set(PROTOCOLS)


def test_settings_of_sessions_are_for_the_table_too(tmp_path: Path) -> None:
    assert listener(tmp_path, 'upstream_proxy = "v2"\n' + TABLE).upstream_proxy == "v2"


def test_upstreams_of_a_configuration_are_own_then_by_protocol_then_by_path() -> None:
    path = WebSocketPath("/a", (WEB,))
    assert Listener(None, config.Address("::", 1), "p").upstreams.named == {}
    upstreams = ProtocolUpstreams(tls=(MEDIA,), http=(GAME,))
    found = Listener(None, config.Address("::", 1), "p", upstream=(GAME,), upstreams=upstreams, websocket=(path,))
    assert Config(config.Server(), (), (found,)).upstreams == [(0, GAME), (0, MEDIA), (0, WEB)]


UP = 'upstream = "127.0.0.1:7001"\n'
HEAD = "[listeners.upstreams]\n"
PLACE = ":6:1: [[listeners]] 1, upstreams: "  # of the first key after HEAD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("upstreams = 1", ":5:1: [[listeners]] 1: upstreams = 1: write a [listeners.upstreams] table"),
        (
            "[[listeners.upstreams]]\nrtmp = 1",
            ":5:1: [[listeners]] 1: upstreams = […]: write a [listeners.upstreams] table",
        ),
        (
            HEAD + "rtmp = 1936",
            PLACE + 'rtmp = 1936: write "HOST:PORT", "unix:/PATH" or a list of up to 64 of them',
        ),
        (HEAD + 'rtmp = ["a:1", "a:1"]', PLACE + "rtmp: 'a:1' is listed twice: remove one"),
        (HEAD + 'rmtp = "a:1"', PLACE + "unknown key 'rmtp': did you mean 'rtmp'?"),
        (
            HEAD + 'other = "a:1"',
            PLACE + "unknown key 'other': write upstream in [[listeners]]: it is for everything that has no key here",
        ),
        (HEAD + 'silent = "a:1"', PLACE + "unknown key 'silent': write upstream in [[listeners]]: "),
        (HEAD + 'websocket = "a:1"', PLACE + "unknown key 'websocket': write upstream in [[listeners.websocket]], "),
        (HEAD + 'rtmps = "a:1"', PLACE + "unknown key 'rtmps': write rtmp, and tls in [[listeners]]: "),
        (HEAD + 'https = "a:1"', PLACE + "unknown key 'https': write http, and tls in [[listeners]]; or tls, "),
        (HEAD + 'rtmpt = "a:1"', PLACE + "unknown key 'rtmpt': write rtmp, and rtmpt = true in [[listeners]]: "),
        (HEAD + 'upstream = "a:1"', PLACE + "unknown key 'upstream': it belongs in [[listeners]]"),
        ('rtmp = "a:1"', ":5:1: [[listeners]] 1: unknown key 'rtmp': it belongs in [listeners.upstreams]"),
        (
            UP + HEAD + 'http = "a:1"\nrtmp = "127.0.0.1:7000"',
            ":8:1: listener 127.0.0.1:7000: the upstream of rtmp is this listener itself: give the application a port "
            "of its own",
        ),
        (
            'tls = ["c"]\n' + HEAD + 'tls = "a:1"\n[certificates.c]\nchain = "c.pem"',
            ":7:1: listener 127.0.0.1:7000: the upstream of tls gets nothing, as the listener has certificates and "
            "ends TLS itself: remove it, or tls of the listener",
        ),
        (
            UP + 'rtmpt = true\nother_http = "refuse"\n' + HEAD + 'http = "a:1"',
            ':9:1: listener 127.0.0.1:7000: the upstream of http gets nothing with other_http = "refuse": remove one '
            "of them",
        ),
        (
            UP + "websocket = true\n" + HEAD + 'http = "a:1"',
            ":8:1: listener 127.0.0.1:7000: the upstream of http gets nothing, as WebSocket has every path: name its "
            "paths in [[listeners.websocket]] tables, or remove http",
        ),
        (
            "websocket = true\n" + HEAD + 'rtmp = "a:1"',
            ":5:1: listener 127.0.0.1:7000: websocket has no upstream to relay to: set upstream",
        ),
        (
            'upstream_source = "client"\n' + HEAD + 'rtmp = "unix:/a"',
            ":5:1: listener 127.0.0.1:7000: upstream_source = \"client\" cannot reach unix:/a, since a Unix socket ",
        ),
    ],
)  # fmt: skip
def test_mistake_is_refused_with_its_place_and_what_to_write(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).removeprefix(str(tmp_path / "f.toml")).startswith(message)
    assert "\n" not in str(caught.value)
