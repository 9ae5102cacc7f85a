"""flashpol ruffle as operators run it: what it prints, its exit status, and the mistakes it reports."""

import json
from pathlib import Path

import pytest

from testkit.processes import call, one_line

GAMES = """
[policies.games]
grants = [{domain = "*.example.com", ports = "7000-7001"}]
[[listeners]]
name = "games"
address = "0.0.0.0:7000"
upstream = "127.0.0.1:17000"
[[listeners.websocket]]
path = "/chess"
port = 7001
[[listeners.websocket]]
path = "*"
[[listeners]]
name = "plain"
address = "0.0.0.0:843"
"""
HOST = ("--host", "games.example.com")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flashpol.toml"
    path.write_text(GAMES)
    return path


def test_ruffle_prints_the_setting_and_a_script(file: Path) -> None:
    done = call("ruffle", "-c", file, *HOST)
    assert (done.returncode, done.stderr) == (0, "")
    setting = done.stdout[done.stdout.index("[") : done.stdout.index("\n]\n") + 2]
    assert json.loads(setting) == [
        {"host": "games.example.com", "port": 7001, "proxyUrl": "ws://games.example.com:7000/chess"},
        {"host": "games.example.com", "port": 7000, "proxyUrl": "ws://games.example.com:7000/"},
    ]
    assert done.stdout.count("<script>") == 1
    assert done.stdout.endswith("ws:// is for pages over http; a page over https needs wss://.\n")


def test_ruffle_with_json_prints_a_document(file: Path) -> None:
    done = call("ruffle", "-c", file, *HOST, "--host", "192.0.2.1", "--port", "7001", "--url", "wss://a", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert data["socketProxy"] == [
        {"host": "games.example.com", "port": 7001, "proxyUrl": "wss://a/chess"},
        {"host": "192.0.2.1", "port": 7001, "proxyUrl": "wss://a/chess"},
    ]
    assert data["script"].startswith("<script>\n")
    assert (data["version"], data["warnings"]) == (1, [])


def test_ruffle_warns_of_a_page_that_could_not_connect(file: Path) -> None:
    done = call("ruffle", "-c", file, *HOST, "--port", "7001", "--page", "https://other.example/play.html")
    assert done.returncode == 1
    refused, mixed = done.stderr.splitlines()
    assert refused.startswith("flashpol ruffle: warning: ws://games.example.com:7000/chess: Origin ")
    assert "browsers let no page over https" in mixed
    assert "<script>" in done.stdout
    done = call("ruffle", "-c", file, *HOST, "--page", "https://www.example.com", "--url", "wss://a")
    assert (done.returncode, done.stderr) == (0, "")


def test_ruffle_warns_of_a_path_that_refuses_every_page(file: Path) -> None:
    file.write_text(GAMES.replace("7000-7001", "7000"))
    done = call("ruffle", "-c", file, *HOST)
    assert done.returncode == 1
    assert "listener games: the WebSocket path /chess is refused to every page: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert call("ruffle", "-c", file, *HOST, "--port", "7000").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--host", "a:7000"), ("'a:7000' is not a host", "write a host name")),
        ((*HOST, "--port", "9"), ("--port 9: no WebSocket path", "only for 7001, 7000; set port in ")),
        ((*HOST, "--listener", "plain"), ("--listener 'plain': no listener with websocket",)),
        ((*HOST, "--listener", "game"), ("did you mean 'games'?",)),
        ((*HOST, "--url", "https://a"), ("'https://a' is not where browsers connect",)),
        ((*HOST, "--page", "a"), ("'a' is not the origin of a page",)),
        ((), ("the following arguments are required: --host",)),
    ],
)
def test_ruffle_with_a_mistake_exits_with_2_and_one_line(
    file: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    message = one_line(call("ruffle", "-c", file, *arguments), "flashpol ruffle")
    for word in words:
        assert word in message


def test_ruffle_of_a_configuration_without_websocket_says_so(file: Path) -> None:
    file.write_text(GAMES.partition("[[listeners.websocket]]")[0])
    assert "no listener has websocket: write websocket = true" in one_line(
        call("ruffle", "-c", file, *HOST), "flashpol ruffle"
    )
