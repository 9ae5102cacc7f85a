"""The settings of RTMPT, and what happens to other HTTP: what they are, and the one-line error for each mistake."""

from pathlib import Path

import pytest

from flashpol import config
from flashpol.config import Config, ConfigError, ConnectionTimeouts, Listener, Server, type_of

START = """[policies.p]
grants = [{domain = "*", ports = 7000}]
[[listeners]]
address = "127.0.0.1:7000"
"""
UP = 'upstream = "127.0.0.1:7001"\n'
RTMPT = UP + "rtmpt = true\n"


def read(folder: Path, text: str) -> Config:
    path = folder / "f.toml"
    path.write_text(START + text)
    return config.check(config.load(path))


def listener(folder: Path, text: str) -> Listener:
    [found] = read(folder, text).listeners
    return found


@pytest.mark.parametrize("upstream", [UP, '[listeners.upstreams]\nrtmp = "127.0.0.1:7001"'])
def test_rtmpt_takes_http_and_needs_an_upstream_for_rtmp(tmp_path: Path, upstream: str) -> None:
    found = listener(tmp_path, "rtmpt = true\n" + upstream)
    assert found.rtmpt
    assert found.takes_http
    assert found.relays
    assert [str(each) for each in found.upstream_for("rtmpt")] == ["127.0.0.1:7001"]


def test_rtmpt_is_off_and_other_http_is_relayed_by_default(tmp_path: Path) -> None:
    found = listener(tmp_path, UP)
    assert (found.rtmpt, found.other_http, found.takes_http) == (False, "relay", False)
    assert Server().host == "A"


def test_rtmpt_beside_tls_only_and_websocket_is_accepted(tmp_path: Path) -> None:
    text = RTMPT + 'tls = ["c"]\ntls_only = true\nwebsocket = true\n[certificates.c]\nchain = "c.pem"'
    assert listener(tmp_path, text).rtmpt


@pytest.mark.parametrize("letter", ["0", "9", "A", "Z", "a", "z"])
def test_host_is_one_letter_or_digit(letter: str) -> None:
    assert type_of(Server, "host").read("host", letter) == letter


@pytest.mark.parametrize("text", ["", "-", "é", "٣", "_", " "])
def test_host_of_another_character_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^host = .*: write one of the characters 0-9, A-Z, a-z$"):
        type_of(Server, "host").read("host", text)


def test_host_that_is_an_address_says_where_that_goes(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text('[server]\nhost = "0.0.0.0"\n')
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert str(caught.value) == (
        f"{path}:2:1: [server]: host: '0.0.0.0' is longer than the one character that it is: write one of 0-9, A-Z, "
        'a-z; an address goes into [[listeners]], as in address = "[::]:843"'
    )


def test_times_and_sizes_may_be_a_listeners_own(tmp_path: Path) -> None:
    own = {
        "http_idle_timeout": 10.0,
        "rtmpt_hold": 0.0,
        "rtmpt_gap": 1.0,
        "rtmpt_session_timeout": 5.0,
        "rtmpt_buffer": 8192,
        "rtmpt_body": 65536,
    }
    found = read(tmp_path, RTMPT + "".join(f"{name} = {value}\n" for name, value in own.items()))
    assert {name: getattr(found.timeouts(found.listeners[0]), name) for name in own} == own
    defaults = {name: getattr(ConnectionTimeouts(), name) for name in own}
    assert [*defaults.values()] == [75.0, 0.5, 2.0, 15.0, 262144, 1048576]


@pytest.mark.parametrize("value", [0, 0.001, 0.5, 4.9])
def test_hold_below_five_seconds_is_accepted(value: float) -> None:
    assert ConnectionTimeouts(rtmpt_hold=value).rtmpt_hold == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rtmpt = true",
            ":5:1: listener 127.0.0.1:7000: rtmpt has no upstream to relay to: set upstream, or rtmp in "
            "[listeners.upstreams]",
        ),
        (
            'rtmpt = true\n[listeners.upstreams]\nhttp = "127.0.0.1:1"',
            ":5:1: listener 127.0.0.1:7000: rtmpt has no upstream to relay to: set upstream, or rtmp in ",
        ),
        (UP + "rtmpt = 1", ":6:1: [[listeners]] 1: rtmpt = 1: write true or false"),
        (
            UP + 'other_http = "refuse"',
            ":6:1: [[listeners]] 1: other_http is about HTTP requests: set rtmpt, websocket, crossdomain_file or "
            "clientaccesspolicy_file too, or remove it",
        ),
        (RTMPT + 'other_http = "404"', ":7:1: [[listeners]] 1: other_http = '404': write \"relay\" or \"refuse\""),
        (RTMPT + "rtmpt_hold = 5", ":7:1: [[listeners]] 1: rtmpt_hold = 5: write 0 (off) or a number from 0.001 to "),
        (RTMPT + "rtmpt_hold = -1", ":7:1: [[listeners]] 1: rtmpt_hold = -1: write 0 (off) or a number from 0.001 to "),
        (RTMPT + "rtmpt_body = 1", ":7:1: [[listeners]] 1: rtmpt_body = 1: write a whole number from 4096 to "),
        (
            RTMPT + "rtmpt_session_timeout = 2",
            ":7:1: listener 127.0.0.1:7000: rtmpt_session_timeout = 2 would end a session while rtmpt_gap = 2 lasts: "
            "make it longer",
        ),
        (
            RTMPT + "rtmpt_gap = 1\nrtmpt_session_timeout = 3\nrtmpt_hold = 4",
            ":8:1: listener 127.0.0.1:7000: rtmpt_session_timeout = 3 would end a session while rtmpt_hold = 4 lasts: ",
        ),
        (
            RTMPT + '[[listeners.websocket]]\npath = "/send/chess"',
            ":8:1: listener 127.0.0.1:7000: the WebSocket path /send/chess begins as those of RTMPT do: write another",
        ),
        ("host = 'A'", ":5:1: [[listeners]] 1: unknown key 'host': write address = \"[::]:843\"; the host of tunnel "),
        ("rtmpts = true", ":5:1: [[listeners]] 1: unknown key 'rtmpts': write rtmpt = true, and tls for RTMPTS"),
        ("[server]\nrtmpt = true", ":6:1: [server]: unknown key 'rtmpt': it belongs in [[listeners]]"),
        ("[server]\nnode_id = 'A'", ":6:1: [server]: unknown key 'node_id': write host = \"A\""),
        ("[server]\nbind = ':80'", ":6:1: [server]: unknown key 'bind': write [[listeners]] and in it address = "),
    ],
)  # fmt: skip
def test_mistake_is_refused_with_its_place_and_what_to_write(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).removeprefix(str(tmp_path / "f.toml")).startswith(message)
    assert "\n" not in str(caught.value)


def test_session_timeout_matters_only_with_rtmpt(tmp_path: Path) -> None:
    assert listener(tmp_path, UP + "rtmpt_session_timeout = 1")
    assert listener(tmp_path, RTMPT.replace("true", "false") + "rtmpt_session_timeout = 1")
    assert read(tmp_path, RTMPT + '[[listeners.websocket]]\npath = "*"')
