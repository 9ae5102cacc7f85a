"""What a real server shows of real WebSocket clients: metrics, status, page, log; each connection has one outcome."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashpol._fastpath import REASONS
from testkit.application import Application, application, receive
from testkit.clients import connect, rest
from testkit.polling import eventually
from testkit.processes import Flashpol, free_port
from testkit.upgrades import CLOSE, upgrade

pytestmark = pytest.mark.slow

GOOD, EVIL = "https://www.example.com", "https://evil.example"
CONFIG = """
[server]
log_format = "json"
access_log = 1.0
[policies.games]
grants = [{{domain = "*.example.com", ports = "7000"}}]
[[listeners]]
name = "games"
address = "127.0.0.1:0"
policy = "games"
upstream = "{upstream}"
[[listeners.websocket]]
path = "/chess"
port = 7000
[[listeners.websocket]]
path = "/down"
port = 7000
upstream = "127.0.0.1:{down}"
"""


@pytest.fixture(scope="module")
def behind() -> Iterator[Application]:
    with application() as behind:
        yield behind


@pytest.fixture(scope="module")
def server(behind: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    config = tmp_path_factory.mktemp("websocket") / "flashpol.toml"
    config.write_text(CONFIG.format(upstream=behind.remote, down=free_port()))
    with Flashpol("-c", config, listen=(), workers=2) as server:
        yield server


def ask(server: Flashpol, path: str, origin: str | None = GOOD, **fields: str | None) -> socket.socket:
    return connect(server.place, upgrade(path, origin, **fields))


def refused(server: Flashpol, path: str, origin: str | None = GOOD, **fields: str | None) -> int:
    """The status of a reply that ends the connection."""
    with ask(server, path, origin, **fields) as client:
        return int(rest(client).split()[1])


def status(server: Flashpol) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(server.get("/-/status").body)
    return parsed


def lines(server: Flashpol, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, server.log.splitlines()) if line.get("event") == event]


def path_of(server: Flashpol, path: str) -> dict[str, Any]:
    [found] = [each for each in status(server)["websocket"] if each["path"] == path]
    return found


def test_session_is_counted_while_it_is_open_and_by_its_code_when_it_has_ended(
    server: Flashpol, behind: Application
) -> None:
    before = server.metrics().total("websocket_closes_total", path="/chess", code="1000", by="client")
    with ask(server, "/chess") as client, behind.accept() as accepted:
        assert receive(client, 12) == b"HTTP/1.1 101"
        eventually(lambda: server.metrics().total("websocket_open", path="/chess") == 1, "an open session")
        client.sendall(CLOSE)
        rest(accepted)
        accepted.close()
        rest(client)

    def ended() -> bool:
        metrics = server.metrics()
        closes = metrics.total("websocket_closes_total", path="/chess", code="1000", by="client")
        return metrics.total("websocket_open", path="/chess") == 0 and closes == before + 1

    eventually(ended, "the end of the session")
    eventually(lambda: server.metrics().total("relayed_total", protocol="websocket") == before + 1, "its protocol")


def test_refused_origin_is_in_metrics_log_status_and_on_the_page(server: Flashpol) -> None:
    for _ in range(3):
        assert refused(server, "/chess", EVIL) == 403
    server.counts(3, "websocket_upgrades_total", path="/chess", result="origin")
    server.counts(3, "refused_total", reason="origin")
    [origin] = path_of(server, "/chess")["refused_origins"]
    assert (origin["origin"], origin["times"]) == (EVIL, 3)
    assert origin["reason"].startswith(f'Origin "{EVIL}" may not connect to port 7000: ')
    eventually(lambda: len(lines(server, "origin-refused")) == 3, "lines of the log")
    line = lines(server, "origin-refused")[0]
    assert (line["listener"], line["path"], line["result"], line["origin"]) == ("games", "/chess", "origin", EVIL)
    assert origin["reason"] in line["message"]
    assert origin["line"] == line["line"]
    page = server.get("/").body.decode()
    assert f"<bdi>{EVIL}</bdi>" in page
    assert path_of(server, "/down")["refused_origins"] == []


@pytest.mark.parametrize(
    ("path", "fields", "code", "result"),
    [
        ("/chess", {"origin": None}, 403, "no_origin"),
        ("/chess", {"Upgrade": None, "Connection": "close"}, 426, "no_upgrade"),
        ("/chess", {"Sec_WebSocket_Key": "short"}, 400, "malformed"),
        ("/chess", {"origin": "nonsense"}, 400, "malformed"),
        ("/down", {}, 502, "upstream"),
    ],
)
def test_upgrade_that_is_not_accepted_is_counted_by_its_result(
    server: Flashpol, path: str, fields: dict[str, str | None], code: int, result: str
) -> None:
    def counted() -> float:
        return server.metrics().total("websocket_upgrades_total", path=path, result=result)

    before = counted()
    assert refused(server, path, **fields) == code
    assert counted() == before + 1


def test_every_connection_has_one_outcome_and_a_line_of_the_access_log(server: Flashpol) -> None:
    def balanced() -> bool:
        metrics = server.metrics()
        names = ("replies_total", "served_total", "timeouts_total", "resets_total")
        ends = sum(metrics.total(name) for name in names)
        ends += sum(metrics.total("refused_total", reason=reason) for reason in REASONS)
        return metrics.total("connections_accepted_total") == ends + metrics.total("relayed_total")

    eventually(balanced, "accepted = replies + served + relayed + refused + timeouts + resets")
    accepted = server.metrics().total("connections_accepted_total")
    assert accepted
    eventually(lambda: len(lines(server, "access")) == accepted, "a line for each")
    outcomes = {line["outcome"] for line in lines(server, "access")}
    assert outcomes <= {"relayed", "origin", "http", "http_malformed", "upstream"}
    assert all(
        line["protocol"] == ("websocket" if line["outcome"] == "relayed" else None) for line in lines(server, "access")
    )
    assert not any(line["tls"] for line in lines(server, "access"))


def test_path_that_the_policy_refuses_to_every_page_is_a_problem(behind: Application, tmp_path: Path) -> None:
    config = tmp_path / "flashpol.toml"
    config.write_text(CONFIG.format(upstream=behind.remote, down=free_port()).replace('ports = "7000"', 'ports = "1"'))
    with Flashpol("-c", config, listen=()) as server:
        problems = [each["message"] for each in status(server)["problems"] if each["kind"] == "websocket"]
        refusing = [message for message in problems if "is refused to every page" in message]
        assert [message.split(" is refused")[0] for message in refusing] == [
            "Listener games: the WebSocket path /chess",
            "Listener games: the WebSocket path /down",
        ]
        server.counts(len(problems), "configuration_problems", kind="websocket")
