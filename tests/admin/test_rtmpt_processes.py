"""What a real server shows of real tunnel sessions: metrics, status, page, log; each connection has one outcome."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flashpol._fastpath import REASONS
from flashpol._tunnel import ENDS
from testkit.application import Application, application, receive
from testkit.polling import eventually
from testkit.processes import Flashpol, free_port
from testkit.rtmpt_client import RtmptClient

pytestmark = pytest.mark.slow

WORKERS = 2
LANES = range(64)  # connections of which some are another worker's
CONFIG = """
[server]
log_format = "json"
access_log = 1.0
rtmpt_session_timeout = {session_timeout}
rtmpt_hold = {hold}
[policies.games]
grants = [{{domain = "*.example.com", ports = "1935"}}]
[[listeners]]
name = "film"
address = "127.0.0.1:0"
policy = "games"
upstream = "{upstream}"
rtmpt = true
[[listeners]]
name = "down"
address = "127.0.0.1:0"
policy = "games"
upstream = "127.0.0.1:{down}"
rtmpt = true
"""


@pytest.fixture(scope="module")
def behind() -> Iterator[Application]:
    with application() as behind:
        yield behind


def write_config(folder: Path, behind: Application, session_timeout: float, hold: float) -> Path:
    path = folder / "flashpol.toml"
    values = {"upstream": behind.remote, "down": free_port(), "session_timeout": session_timeout, "hold": hold}
    path.write_text(CONFIG.format(**values))
    return path


@pytest.fixture(scope="module")
def server(behind: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    config = write_config(tmp_path_factory.mktemp("rtmpt"), behind, session_timeout=3.0, hold=0.3)
    with Flashpol("-c", config, listen=(), workers=WORKERS) as server:
        yield server


def status(server: Flashpol) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(server.get("/-/status").body)
    return parsed


def lines(server: Flashpol, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, server.log.splitlines()) if line.get("event") == event]


def count(server: Flashpol, name: str, **labels: str) -> float:
    return server.metrics().total(f"rtmpt_{name}", **{"listener": "film"} | labels)


def use_both_workers(server: Flashpol, client: RtmptClient) -> int:
    """Send requests on new connections until one of them was forwarded; which connection that was."""
    for via in LANES:
        before = count(server, "forwarded_total")
        assert client.send(b"x", via=via).status == 200
        if count(server, "forwarded_total") > before:
            return via
    raise AssertionError("no connection was another worker's")


def test_session_is_counted_while_it_is_open_and_by_what_ended_it(server: Flashpol, behind: Application) -> None:
    ended = count(server, "ends_total", by="client")
    opened, polls = count(server, "sessions_total"), count(server, "polls_total")
    with RtmptClient(server.place) as client:
        assert client.open().status == 200
        with behind.accept() as accepted:
            assert count(server, "sessions_open") == 1
            client.send(b"hello")
            assert receive(accepted, 5) == b"hello"
            client.write("idle")
            eventually(lambda: count(server, "polls_held") == 1, "a held poll")
            accepted.sendall(b"you")
            assert client.read().body == b"you"
            assert (count(server, "polls_held"), count(server, "polls_total")) == (0, polls + 1)
            assert count(server, "buffered_bytes") == 4, "the last reply, for a client that asks once more"
            client.close()
            assert accepted.recv(1) == b""
    eventually(lambda: count(server, "ends_total", by="client") == ended + 1, "its end")
    assert (count(server, "sessions_open"), count(server, "sessions_total")) == (0, opened + 1)
    eventually(lambda: count(server, "buffered_bytes") == 0, "nothing is kept")


def test_session_whose_client_vanishes_is_a_ghost_in_metrics_log_and_on_the_page(
    server: Flashpol, behind: Application
) -> None:
    with RtmptClient(server.place) as client:
        client.open()
        with behind.accept() as accepted:
            client.disconnect()
            assert accepted.recv(1) == b"", "the upstream is closed"
    eventually(lambda: count(server, "ends_total", by="ghost") == 1, "its end")
    [line] = eventually(lambda: lines(server, "rtmpt-ghosts"), "a line of the log")
    assert (line["level"], line["listener"], line["sessions"]) == ("INFO", "film", 1)
    [film, _] = status(server)["rtmpt"]
    assert (film["listener"], film["ends"]["ghost"]) == ("film", 1)
    assert "<code>ghost</code>" in server.get("/").body.decode()


def test_request_on_another_worker_is_counted_where_it_came_and_the_session_where_it_is(
    server: Flashpol, behind: Application
) -> None:
    failures = count(server, "forward_failures_total")
    with RtmptClient(server.place) as client:
        client.open()
        with behind.accept():
            use_both_workers(server, client)
            assert count(server, "sessions_open") == 1
            client.close()
    assert count(server, "forward_failures_total") == failures


def test_request_that_comes_early_twice_or_for_no_session_is_counted(server: Flashpol, behind: Application) -> None:
    before = {name: count(server, f"{name}_total") for name in ("reordered", "repeated", "unknown_sessions")}
    with RtmptClient(server.place) as client:
        client.open()
        with behind.accept() as accepted:
            client.send(b"a")
            client.write("send", b"c", number=2)
            eventually(lambda: count(server, "reordered_total") == before["reordered"] + 1, "a request that waits")
            client.send(b"b", number=1, via=1)
            client.read()
            assert receive(accepted, 3) == b"abc"
            client.send(b"c", number=2)
            assert count(server, "repeated_total") == before["repeated"] + 1
            client.close()
        assert client.idle().status == 404
    assert count(server, "unknown_sessions_total") == before["unknown_sessions"] + 1


def test_session_without_an_upstream_is_refused_in_metrics_and_log(server: Flashpol) -> None:
    with RtmptClient(server.places[1]) as client:
        for _ in range(3):
            assert client.open().status == 502

    def refused() -> float:
        return server.metrics().total("refused_total", listener="down", reason="upstream")

    eventually(lambda: refused() == 3, "three sessions; the connection that asked for them is served")
    eventually(
        lambda: sum(server.metrics().total("refused_total", reason=reason) for reason in REASONS) == 3, "the ends"
    )
    assert count(server, "sessions_total", listener="down") == 0
    [line, *others] = eventually(lambda: lines(server, "rtmpt-refused"), "a line of the log")
    assert (line["level"], line["listener"], line["ip"]) == ("WARNING", "down", "127.0.0.1")
    assert (line["reason"], line["status"]) == ("refused", 502)
    assert line["message"].endswith("for 127.0.0.1, which got 502: no upstream could be reached (refused)")
    assert len(others) < WORKERS, "one a minute, of each worker"


def test_every_connection_has_one_outcome_and_a_line_of_the_access_log(server: Flashpol, behind: Application) -> None:
    with RtmptClient(server.place, per_request=True) as client:  # many connections of one session
        client.open()
        with behind.accept() as accepted:
            for _ in range(5):
                client.send(b"x")
            client.close()
            accepted.recv(100)

    def balanced() -> bool:
        metrics = server.metrics()
        names = ("replies_total", "served_total", "timeouts_total", "resets_total")
        ends = sum(metrics.total(name) for name in names)
        ends += sum(metrics.total("refused_total", reason=reason) for reason in REASONS)
        at_rest = metrics.total("connections_open") == 0
        return at_rest and metrics.total("connections_accepted_total") == ends + metrics.total("relayed_total")

    eventually(balanced, "accepted = replies + served + relayed + refused + timeouts + resets")
    metrics = server.metrics()
    sessions = metrics.total("rtmpt_sessions_total")
    assert sessions == metrics.total("relayed_total", protocol="rtmpt") == metrics.total("rtmpt_ends_total") > 0
    server.counts(sessions, "relay_ends_total")
    accepted_total = metrics.total("connections_accepted_total")
    eventually(lambda: len(lines(server, "access")) == accepted_total, "a line for each")
    outcomes = [(line["outcome"], line["protocol"]) for line in lines(server, "access")]
    assert outcomes.count(("relayed", "rtmpt")) == sessions
    assert outcomes.count(("upstream", None)) == 3
    assert set(outcomes) == {("relayed", "rtmpt"), ("served", None), ("upstream", None)}
    assert outcomes.count(("served", None)) == metrics.total("served_total")


def test_worker_that_dies_crashes_its_sessions_and_a_reload_takes_no_count_back(
    behind: Application, tmp_path: Path
) -> None:
    config = write_config(tmp_path, behind, session_timeout=30.0, hold=4.0)
    with Flashpol("-c", config, listen=(), workers=WORKERS) as server:
        with RtmptClient(server.place) as client:
            client.open()
            with behind.accept():
                via = use_both_workers(server, client)
                client.write("idle", via=via)
                eventually(lambda: count(server, "polls_held") == 1, "a held poll")
                slot = "0123456789".index(client.id[2])  # incarnations of the first generation begin with 0
                os.kill(status(server)["workers"][slot]["pid"], signal.SIGKILL)
                assert client.read(via).status == 404
        eventually(lambda: count(server, "ends_total", by="crashed") == 1, "the session's end")
        assert (count(server, "sessions_open"), count(server, "polls_held")) == (0, 0)
        assert count(server, "forward_failures_total") == 1
        [line] = eventually(lambda: lines(server, "rtmpt-forward-failed"), "a line of the log")
        assert (line["level"], line["listener"], line["requests"]) == ("WARNING", "film", 1)
        eventually(
            lambda: "rtmpt-forwarding" in [each["kind"] for each in status(server)["problems"]],
            "a problem, and a sample",
        )
        names = ("sessions", "polls", "forwarded", "forward_failures", "unknown_sessions", "repeated")

        def counters() -> dict[str, float]:
            ends = {end: count(server, "ends_total", by=end) for end in ENDS}
            return ends | {name: count(server, f"{name}_total") for name in names}

        before = counters()
        assert before["crashed"] == before["sessions"] == 1
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: lines(server, "reloaded"), "the reload")
        eventually(lambda: server.metrics().total("draining_workers") == 0, "the end of the old workers")
        assert counters() == before


def test_session_over_a_limit_is_refused_in_metrics_and_log_by_the_name_of_the_limit(
    behind: Application, tmp_path: Path
) -> None:
    config = write_config(tmp_path, behind, session_timeout=30.0, hold=0.3)
    config.write_text(config.read_text().replace("[server]", "[server]\nmax_address_sessions = 1"))
    with Flashpol("-c", config, listen=()) as server, RtmptClient(server.place) as one:
        assert one.open().status == 200
        with behind.accept() as accepted, RtmptClient(server.place) as other:
            one.send(b"x")
            accepted.sendall(b"y")
            assert one.receive_exactly(1) == b"y"  # a silent session would be evicted
            assert other.open().status == 503
            [line] = eventually(lambda: lines(server, "rtmpt-refused"), "a line of the log")
            assert (line["reason"], line["status"]) == ("max_address_sessions", 503)
            assert line["message"].endswith("which got 503: max_address_sessions")
        eventually(
            lambda: server.metrics().total("refused_total", reason="max_address_sessions") == 1, "the connection's end"
        )
        one.close()
