"""The settings of WebSocket: tables and the one-line error for each mistake, with its place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol import config
from flashpol.config import (
    EVERY_PATH_TO_UPSTREAM,
    Config,
    ConfigError,
    Listener,
    UpstreamAddress,
    WebSocketPath,
    type_of,
)
from testkit.examples import examples

START = """[policies.p]
grants = [{domain = "*", ports = 7000}]
[[listeners]]
address = "127.0.0.1:7000"
"""
CHESS, GO = UpstreamAddress("127.0.0.1", 7001), UpstreamAddress("127.0.0.1", 7002)


def read(folder: Path, text: str) -> Config:
    path = folder / "f.toml"
    path.write_text(START + text)
    return config.check(config.load(path))


def listener(folder: Path, text: str) -> Listener:
    [found] = read(folder, text).listeners
    return found


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(str(folder / "f.toml"))


def test_websocket_true_is_one_table_for_every_path(tmp_path: Path) -> None:
    found = listener(tmp_path, 'upstream = "127.0.0.1:7001"\nwebsocket = true')
    assert found.websocket == EVERY_PATH_TO_UPSTREAM == (WebSocketPath("*"),)
    [path] = found.websocket
    assert found.upstream_of(path) == (CHESS,)
    assert found.port_of(path) == 7000
    assert found.takes_http


def test_websocket_false_is_no_table(tmp_path: Path) -> None:
    found = listener(tmp_path, "websocket = false")
    assert found.websocket == ()
    assert not found.takes_http


def test_tables_of_a_listener_have_their_settings_in_order(tmp_path: Path) -> None:
    found = listener(
        tmp_path,
        """
        served_from = 443
        [[listeners.websocket]]
        path = "/chess"
        upstream = "127.0.0.1:7001"
        port = 7001
        origins = ["https://Games.example.com:443", "http://*.example.net:8080"]
        [[listeners.websocket]]
        path = "*"
        upstream = ["127.0.0.1:7002", "127.0.0.1:7001"]
        origins = "any"
        without_origin = true
        text = true
        compression = true
        """,
    )
    chess, other = found.websocket
    assert chess == WebSocketPath("/chess", (CHESS,), 7001, ("https://games.example.com", "http://*.example.net:8080"))
    assert other == WebSocketPath("*", (GO, CHESS), None, "any", True, True, True)
    assert (found.port_of(chess), found.port_of(other)) == (7001, 443)


def test_inline_tables_are_tables_too(tmp_path: Path) -> None:
    assert listener(tmp_path, 'websocket = [{path = "/a", upstream = "127.0.0.1:7001"}]').websocket == (
        WebSocketPath("/a", (CHESS,)),
    )


def test_tables_belong_to_the_listener_above(tmp_path: Path) -> None:
    first, second = read(
        tmp_path,
        'upstream = "127.0.0.1:7001"\n[[listeners.websocket]]\npath = "/a"\n'
        '[[listeners]]\naddress = "127.0.0.1:8000"\nupstream = "127.0.0.1:7001"\n[[listeners.websocket]]\npath = "/b"',
    ).listeners
    assert [path.path for path in first.websocket] == ["/a"]
    assert [path.path for path in second.websocket] == ["/b"]


def test_upstreams_of_a_configuration_are_those_of_listeners_then_paths_each_once(tmp_path: Path) -> None:
    own = UpstreamAddress("127.0.0.1", 7003)
    paths = (WebSocketPath("/a", (CHESS, GO)), WebSocketPath("/b"), WebSocketPath("/c", (own, GO)))
    address = config.Address("127.0.0.1", 1)
    shared = Listener(None, address, "p", upstream=(own,), websocket=paths)
    only_paths = Listener(None, address, "p", websocket=(WebSocketPath("/a", (CHESS,)),))
    plain = Listener(None, address, "p")
    made = Config(config.Server(), (), (plain, shared, only_paths))
    assert shared.all_upstreams == (own, CHESS, GO)
    assert made.upstreams == [(1, own), (1, CHESS), (1, GO), (2, CHESS)]
    assert (plain.relays, shared.relays, only_paths.relays) == (False, True, True)
    assert (shared.shared, only_paths.shared) == (True, False)


def test_a_path_without_sessions_of_its_listener_drains_too(tmp_path: Path) -> None:
    found = read(tmp_path, '[[listeners.websocket]]\npath = "/a"\nupstream = "127.0.0.1:7001"')
    assert found.draining == found.server.drain_timeout


def test_settings_of_sessions_are_for_paths_with_an_upstream_too(tmp_path: Path) -> None:
    text = 'upstream_proxy = "v2"\n[[listeners.websocket]]\npath = "/a"\nupstream = "127.0.0.1:7001"'
    assert listener(tmp_path, text).upstream_proxy == "v2"


def test_policy_files_are_in_the_folder_of_the_configuration(tmp_path: Path) -> None:
    text = 'crossdomain_file = "c.xml"\nclientaccesspolicy_file = "/srv/s.xml"\nforwarded_networks = ["10.0.0.0/8"]'
    found = listener(tmp_path, text)
    assert found.crossdomain_file == tmp_path / "c.xml"
    assert found.clientaccesspolicy_file == Path("/srv/s.xml")
    assert found.takes_http


def test_timeouts_of_websocket_may_be_a_listeners_own(tmp_path: Path) -> None:
    found = read(tmp_path, "websocket_ping = 0\nwebsocket_message = 1000")
    own = found.timeouts(found.listeners[0])
    assert (own.websocket_ping, own.websocket_message) == (0, 1000)
    assert (found.server.timeouts.websocket_ping, found.server.timeouts.websocket_message) == (30.0, 2**24)


# ------------------------------------------------------------------------------------------------------------- mistakes

UP = 'upstream = "127.0.0.1:7001"\n'
TABLE = UP + "[[listeners.websocket]]\n"
PLACE = ":7:1: [[listeners]] 1, websocket 1: "  # of the first key in TABLE


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("websocket = true", ":5:1: listener 127.0.0.1:7000: websocket has no upstream to relay to: set upstream"),
        (
            '[[listeners.websocket]]\npath = "/a"',
            ":5:1: listener 127.0.0.1:7000: the WebSocket path /a has no upstream to relay to: set upstream",
        ),
        (
            UP + 'websocket = "yes"',
            ":6:1: [[listeners]] 1: websocket = 'yes': write true, false or up to 256 [[listeners.websocket]] tables",
        ),
        (
            UP + "[listeners.websocket]\npath = '/a'",
            ":6:1: [[listeners]] 1: websocket = {…}: write true, false or up to 256 [[listeners.websocket]] tables",
        ),
        (
            UP + "websocket = [1]",
            ":6:14: [[listeners]] 1, websocket 1: must be a table with path, upstream, port, origins, without_origin, "
            "text, compression",
        ),
        (TABLE, ":6:1: [[listeners]] 1, websocket 1: path is missing: write a path, such as \"/chess\", or \"*\""),
        (
            UP + 'crossdomain_file = "c.xml"\n[[listeners.websocket]]\npath = "/crossdomain.xml"',
            ":8:1: listener 127.0.0.1:7000: the WebSocket path /crossdomain.xml is that of a policy file, which is "
            "served there: write another",
        ),
        (
            TABLE + 'path = "/a"\n[[listeners.websocket]]\nport = 1\npath = "/a"',
            ":10:1: listener 127.0.0.1:7000: the WebSocket path /a is there twice: remove one (the other one: "
            "{folder}/f.toml:6:1)",
        ),
        (
            TABLE + 'upstream = "127.0.0.1:7000"\npath = "/a"',
            ":7:1: listener 127.0.0.1:7000: the WebSocket path /a leads to this listener itself: give the application "
            "a port of its own",
        ),
        (
            UP + 'dialect = "silverlight"\nwebsocket = true',
            ":7:1: listener 127.0.0.1:7000: websocket is for Flash content, which a policy of dialect silverlight says "
            "nothing about: give it a listener of its own",
        ),
        (
            'forwarded_networks = ["10.0.0.0/8"]',
            ":5:1: [[listeners]] 1: forwarded_networks is about HTTP requests: set rtmpt, websocket, "
            "crossdomain_file or clientaccesspolicy_file too, or remove it",
        ),
        ("websocket_message = 10", ":5:1: [[listeners]] 1: websocket_message = 10: write a whole number from 125 to "),
        ('path = "/a"', ":5:1: [[listeners]] 1: unknown key 'path': it belongs in [[listeners.websocket]]"),
        ("ws = true", ":5:1: [[listeners]] 1: unknown key 'ws': write websocket = true"),
        ("real_ip = 1", ":5:1: [[listeners]] 1: unknown key 'real_ip': write forwarded_networks = [\"10.0.0.0/8\"]"),
        (TABLE + 'location = "/a"', PLACE + "unknown key 'location': write path = \"/chess\""),
        (TABLE + 'url = "/a"', PLACE + "unknown key 'url': write path = \"/chess\""),
        (TABLE + 'backend = "/a"', PLACE + "unknown key 'backend': write upstream = \"127.0.0.1:7001\""),
        (TABLE + 'target = "/a"', PLACE + "unknown key 'target': write upstream = \"127.0.0.1:7001\""),
        (TABLE + 'origin = "/a"', PLACE + "unknown key 'origin': write origins = [\"https://games.example.com\"]"),
        (TABLE + 'policy = "/a"', PLACE + "unknown key 'policy': it belongs in [[listeners]]"),
        (TABLE + "compresion = true", PLACE + "unknown key 'compresion': did you mean 'compression'?"),
        (TABLE + "text = 1", PLACE + "text = 1: write true or false"),
        (TABLE + "port = 0", PLACE + "port = 0: write a whole number from 1 to 65535"),
        (TABLE + "path = 1", PLACE + 'path = 1: write a path, such as "/chess", or "*"'),
        (TABLE + 'path = "chess"', PLACE + "path: 'chess' does not begin with a slash: write \"/chess\", or "),
        (TABLE + 'path = "/a?b=c"', PLACE + "path: '/a?b=c' has a query, which is ignored: write \"/a\""),
        (TABLE + 'path = "/a#b"', PLACE + "path: '/a#b' has a fragment, which no client sends: write \"/a\""),
        (TABLE + 'path = "/a b"', PLACE + "path: '/a b' is not the path of a URL: write "),
        (TABLE + 'path = "/100%"', PLACE + "path: '/100%' is not the path of a URL: write "),
        (TABLE + 'path = "/é"', PLACE + "path: '/é' is not the path of a URL: write "),
        (TABLE + 'path = "/*"', None),
        (TABLE + 'path = "/a/../b"', PLACE + "path: '/a/../b': clients remove . and .. before they connect: write "),
        (TABLE + 'path = "/%2E"', PLACE + "path: '/%2E': clients remove . and .. before they connect: write "),
        (TABLE + f'path = "/{"a" * 1024}"', PLACE + "path: the path has 1,025 characters: write at most 1,024"),
        (TABLE + "origins = []", PLACE + 'origins = […]: write "policy", "any" or a list of up to 256 origins, '),
        (TABLE + 'origins = "*"', PLACE + 'origins: "*" is no origin: write "any"'),
        (TABLE + 'origins = ["*"]', PLACE + "origins: '*' is no origin: write origins = \"any\""),
        (TABLE + 'origins = ["policy"]', PLACE + "origins: 'policy' is no origin: write origins = \"policy\""),
        (TABLE + 'origins = "https://a"', PLACE + 'origins: write a list: ["https://a"]'),
        (TABLE + 'origins = ["null"]', PLACE + 'origins: "null" is the origin of local files and of sandboxed '),
        (TABLE + 'origins = ["a.example"]', PLACE + "origins: 'a.example' has no scheme: write \"https://a.example\""),
        (
            TABLE + 'origins = ["https://A.example/game"]',
            PLACE + "origins: 'https://A.example/game': an origin has no path: write \"https://a.example\"",
        ),
        (TABLE + 'origins = ["https://é.example"]', PLACE + "origins: 'https://é.example': browsers send "),
        (TABLE + 'origins = ["https://a", "https://A:443"]', PLACE + "origins: 'https://a' is listed twice"),
        *(
            (TABLE + f'origins = ["{origin}"]', f"{PLACE}origins: '{origin}' is no origin: write SCHEME://HOST or ")
            for origin in (
                "https://", "https://*", "https://a.*.example", "https://*.1.2.3.4", "https://*.[::1]", "https://::1",
                "https://[::1", "https://1.2.3", "https://a:0", "https://a:65536", "https://a:", "https://u@a",
                "https://a..b", "https://-a", "https://a.example.", "1://a", "https://a b",
            )
        ),
    ],
)  # fmt: skip
def test_mistake_is_refused_with_its_place_and_what_to_write(tmp_path: Path, text: str, message: str | None) -> None:
    if message is None:
        read(tmp_path, text)
    else:
        assert refused(tmp_path, text).startswith(message.replace("{folder}", str(tmp_path)))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("HTTPS://Games.Example.COM", "https://games.example.com"),
        ("http://a:80", "http://a"),
        ("http://a:443", "http://a:443"),
        ("https://*.example.com:8443", "https://*.example.com:8443"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_origin_is_held_as_browsers_send_it(written: str, meant: str) -> None:
    assert type_of(WebSocketPath, "origins").read("origins", [written]) == (meant,)


@examples(200)
@given(st.text(st.sampled_from("aB.:/*[]1%#?@-_ é"), max_size=12).map(lambda rest: f"https://{rest}"))
def test_any_origin_is_refused_or_held_in_a_form_that_reads_as_itself(text: str) -> None:
    kind = type_of(WebSocketPath, "origins")
    try:
        found = kind.read("origins", [text])
    except ConfigError:
        return
    assert kind.read("origins", list(found)) == found
