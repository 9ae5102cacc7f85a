"""The log of a real server as JSON lines: start, a worker's death, stop, access log."""

import fcntl
import json
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from testkit.clients import ask, connect, rest
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, READY, ROOT, Flashpol, command

JSON_LINES = ("--policy", POLICY, "--log-format", "json")


def events(server: Flashpol, name: str | None = None) -> list[dict[str, object]]:
    """All lines, each of which must be JSON, or those of one event; not that the tests run as root."""
    lines = [json.loads(line) for line in server.log.splitlines()]
    return [line for line in lines if line["event"] == name or (name is None and line["event"] != "root")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_log_of_start_and_stop_has_three_events(number: signal.Signals) -> None:
    with Flashpol(*JSON_LINES, workers=2) as server:
        assert ask(server.place)
        assert server.stop(number) == 0
        first, second, third = events(server)
    assert (first["event"], first["workers"], first["listeners"]) == ("ready", 2, server.addresses)
    assert (second["event"], second["signal"]) == ("stopping", number.name)
    assert third["event"] == "stopped"
    assert {(line["process"], line["pid"], line["level"]) for line in (first, second, third)} == {
        ("arbiter", server.process.pid, "INFO")
    }


def test_log_of_a_killed_worker_names_it_and_the_signal() -> None:
    with Flashpol(*JSON_LINES) as server:
        [victim] = server.workers
        victim.kill()
        [line] = eventually(lambda: events(server, "process-ended"), "the line")
        assert (line["level"], line["child"], line["child_pid"]) == ("ERROR", "worker 0", victim.pid)
        assert line["status"] == -signal.SIGKILL
        eventually(lambda: server.up == 1, "the next one")
        assert ask(server.place)
        assert len(events(server)) == 2


def test_log_of_a_failing_worker_has_its_exception_in_one_line() -> None:
    fail = "import flashpol.worker.worker as w; w.run = lambda *_, **__: 1 // 0"
    with (
        pytest.raises(AssertionError, match="ended with 1") as failed,
        Flashpol(*JSON_LINES, prelude=fail),
    ):
        raise AssertionError("it cannot be ready")
    lines = [json.loads(line) for line in str(failed.value).splitlines()[0].partition(": ")[2].split("\n")]
    assert lines[0]["event"] == "process-failed"


def test_log_of_a_failing_greenlet_has_its_exception() -> None:
    fail = """
import gevent, flashpol.worker.worker as w
serve = w.run
def run(*arguments):
    gevent.spawn(lambda: 1 // 0)
    serve(*arguments)
w.run = run
"""
    with Flashpol(*JSON_LINES, prelude=fail) as server:
        [line] = eventually(lambda: events(server, "hub-error"), "the line")
        assert str(line["exception"]).endswith("ZeroDivisionError: integer division or modulo by zero")
        assert ask(server.place)
        assert {line["event"] for line in events(server)} == {"ready", "hub-error"}


def test_access_log_of_a_reply_has_its_fields() -> None:
    with Flashpol(*JSON_LINES, "--access-log", "1") as server:
        reply = ask(server.place)
        [line] = eventually(lambda: events(server, "access"), "the line")
        assert (line["process"], line["listener"], line["ip"]) == ("worker-0", server.addresses[0], "127.0.0.1")
        assert (line["outcome"], line["bytes"], line["left_out"]) == ("reply", len(reply), 0)
        assert line["pid"] != os.getpid()


def test_log_of_reloads_says_whether_they_succeeded(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    good = f'[server]\nlog_format = "{{}}"\n[policies.p]\nfile = "{POLICY}"\n'
    file.write_text(good.format("json"))
    with Flashpol("-c", file) as server:
        server.process.send_signal(signal.SIGHUP)
        [line] = eventually(lambda: events(server, "reloaded"), "the reload")
        assert (line["workers"], line["listeners"]) == (1, server.addresses)
        file.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        [line] = eventually(lambda: events(server, "not-reloaded"), "the mistake")
        assert "nonsense" in str(line["error"]) or str(file) in str(line["error"])
        file.write_text(good.format("text"))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "INFO: reloaded" in server.log, "the other format")


def test_access_log_of_all_in_a_flood_has_every_connection() -> None:
    with Flashpol("--policy", POLICY, "--access-log", "1", workers=2) as server:
        for _ in range(700):
            assert ask(server.place)
        eventually(lambda: server.log.count(": reply after ") == 700, "all lines")


def test_access_log_to_a_full_pipe_counts_what_it_drops() -> None:
    """The last drops are reported within a second once the pipe is read, without another connection."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 14)
    serve = command("serve", "--policy", POLICY, "--listen", "127.0.0.1:0", "--admin", "off", "--access-log", "1")
    process = subprocess.Popen(serve, cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, text=True)
    os.close(writing)
    os.set_blocking(reading, False)
    text = ""

    def accounted() -> bool:
        nonlocal text
        with suppress(BlockingIOError):
            text += os.read(reading, 1 << 16).decode()
        dropped = re.findall(r"(\d+) log lines dropped", text)
        return bool(dropped) and text.count(": reply after ") + sum(map(int, dropped)) == 400

    try:
        assert process.stdout
        ready = READY.search(process.stdout.readline())
        assert ready
        host, _, port = ready[2].rpartition(":")
        for _ in range(400):
            assert ask((host, int(port)))
        eventually(accounted, "every connection is a line or counted as dropped")
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)
        os.close(reading)


def test_log_of_connections_refused_by_a_limit_names_the_limit_and_the_addresses(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    file.write_text("[server]\nmax_address_connections = 1\nstall_timeout = 0\n")
    with Flashpol("-c", file, *JSON_LINES) as server:
        with connect(server.place):
            eventually(lambda: server.metrics().total("connections_open") == 1, "the first one")
            assert rest(connect(server.place)) == b""
            [line] = eventually(lambda: events(server, "refusing"), "the line")
        assert (line["listener"], line["level"], line["process"]) == (server.addresses[0], "WARNING", "worker-0")
        assert (line["reason"], line["refused"]) == ("max_address_connections", 1)
        assert line["addresses"] == {"127.0.0.1": 1}
        assert str(line["message"]).endswith("over max_address_connections (1); most from 127.0.0.1 (1)")


def test_log_of_connections_refused_just_before_the_stop_counts_all(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    file.write_text("[server]\nworkers = 1\nmax_address_connections = 1\nstall_timeout = 0\n")
    with Flashpol("-c", file, *JSON_LINES) as server:
        client = connect(server.place)
        for number in range(1, 7):  # each gives way to the next
            eventually(lambda number=number: server.metrics().total("connections_accepted_total") == number)
            before, client = client, connect(server.place)
            assert rest(before) == b""
            if number == 1:
                eventually(lambda: events(server, "refusing"), "the line")
        client.close()
        assert server.stop() == 0
        assert [line["refused"] for line in events(server, "refusing")] == [1, 5]
