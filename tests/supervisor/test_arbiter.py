"""The arbiter and its children as processes: exact totals, replacement, signals, and no orphans."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flashpol.policy import compile_reply
from testkit.clients import REQUEST, ask, connect, rest
from testkit.polling import DEADLINE, eventually
from testkit.processes import PATIENT, POLICY, Flashpol, Process, descriptors, status

REPLY = compile_reply(POLICY.read_bytes())


def serve(*arguments: str | Path, workers: int = 1) -> Flashpol:
    return Flashpol("--policy", POLICY, *arguments, workers=workers)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A configuration with short time limits."""
    file = tmp_path / "s.toml"
    file.write_text("[server]\nrequest_timeout = 0.4\nshutdown_timeout = 1.0\nstall_timeout = 0\n")
    return file


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """A configuration in which no open connection ends by itself while a test runs."""
    file = tmp_path / "s.toml"
    file.write_text("[server]\nrequest_timeout = 60\nshutdown_timeout = 60\n")
    return file


def ask_often(server: Flashpol, number: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert all(reply == REPLY for reply in pool.map(lambda _: ask(server.place), range(number)))


def gone(*processes: Process | None) -> Callable[[], bool]:
    return lambda: not any(process and process.alive for process in processes)


@contextlib.contextmanager
def stopped(process: Process) -> Iterator[None]:
    """Held by SIGSTOP, its accept queue filling, until the block ends."""
    process.kill(signal.SIGSTOP)
    try:
        eventually(lambda: status(process.pid)["State"].startswith("T"), "SIGSTOP")
        yield
    finally:
        process.kill(signal.SIGCONT)


# ------------------------------------------------------------------------------------------------------- exact totals


def test_totals_after_a_worker_was_killed_are_exact() -> None:
    with serve(workers=3) as server:
        ask_often(server, 300)
        held = [connect(server.place) for _ in range(6)]
        eventually(lambda: server.metrics().total("parked_connections") == 6, "six parked connections")
        victim, *others = server.workers
        victim.kill()
        eventually(lambda: server.metrics().total("worker_restarts_total") == 1 and server.up == 3, "a successor")
        ask_often(server, 200)
        for connection in held:
            connection.close()
        eventually(
            lambda: server.metrics().total("connections_open") == 0, "gauges without the dead worker's connections"
        )
        server.counts(500, "replies_total")
        server.counts(500, "request_duration_seconds_count")
        server.counts(500, "request_duration_seconds_bucket", le="+Inf")
        server.counts(500 * len(REPLY), "reply_bytes_total")
        server.counts(506, "connections_accepted_total")
        server.counts(0, "parked_connections")
        server.counts(0, "sessions")
        server.counts(1, "worker_restarts_total")
        assert all(worker.alive for worker in others)
        server.logs("was killed by SIGKILL")
        assert "Traceback" not in server.log
        assert server.stop() == 0


def test_connections_are_spread_over_all_workers() -> None:
    with serve(workers=2) as server:
        before = [len(descriptors(worker.pid)) for worker in server.workers]
        held = [connect(server.place) for _ in range(64)]
        eventually(lambda: server.metrics().total("connections_open") == 64, "all accepted")
        more = [len(descriptors(worker.pid)) - n for worker, n in zip(server.workers, before, strict=True)]
        assert sum(more) == 64
        assert min(more) > 8, "of 64 connections one of two workers gets so few once in 10^10 runs"
        for connection in held:
            connection.close()


# --------------------------------------------------------------------------------------------------------- replacement


def test_queue_of_a_killed_worker_is_served_by_its_successor() -> None:
    with serve("-c", PATIENT) as server:
        [worker] = server.workers
        with stopped(worker):
            waiting = [connect(server.place, REQUEST) for _ in range(20)]
            eventually(lambda: server.metrics().total("accept_queue_length") == 20, "20 in the accept queue")
            assert server.metrics().total("accept_queue_limit") >= 20
            worker.kill()
        assert [rest(connection) for connection in waiting] == [REPLY] * 20
        eventually(lambda: server.metrics().total("accept_queue_length") == 0, "an empty accept queue")
        server.counts(20, "replies_total")
        assert not worker.alive


def test_worker_that_dies_repeatedly_is_replaced_each_time() -> None:
    with serve() as server:
        for deaths in range(1, 4):
            eventually(lambda: server.up == 1, "a worker")
            [worker] = eventually(lambda: server.workers, "a worker")
            worker.kill()
            eventually(lambda n=deaths: server.metrics().total("worker_restarts_total") == n, "its death")
        assert ask(server.place) == REPLY
        assert server.log.count("was killed by SIGKILL; its successor starts in") == 3


def test_killed_admin_process_is_replaced_while_workers_serve() -> None:
    with serve() as server:
        workers, admin = server.workers, eventually(lambda: server.admin, "the admin process")
        admin.kill()
        assert ask(server.place) == REPLY
        eventually(lambda: server.admin not in (None, admin), "the next admin process")
        server.counts(1, "replies_total")
        server.counts(0, "worker_restarts_total")
        assert server.get("/-/ready").status == 200
        assert server.workers == workers


# -------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_finishes_open_and_queued_connections_and_exits_with_0(number: signal.Signals) -> None:
    with serve("-c", PATIENT) as server:
        [worker] = server.workers
        begun = connect(server.place, REQUEST[:10])
        eventually(lambda: server.metrics().total("parked_connections") == 1, "half a request")
        with stopped(worker):
            queued = [connect(server.place, REQUEST) for _ in range(10)]
            late = connect(server.place, REQUEST[:5])
            server.process.send_signal(number)
            eventually(lambda: server.get("/-/ready").status == 503, "not ready")
            assert server.get("/-/healthy").status == 200
        assert [rest(connection) for connection in queued] == [REPLY] * 10
        assert server.process.poll() is None, "it waits for open connections"
        begun.sendall(REQUEST[10:])
        late.sendall(REQUEST[5:])
        assert [rest(begun), rest(late)] == [REPLY, REPLY]
        assert server.process.wait(5) == 0
        assert not worker.alive
        assert "Traceback" not in server.log
        with pytest.raises(ConnectionRefusedError):
            ask(server.place)


def test_stop_with_a_silent_client_ends_by_request_timeout(short: Path) -> None:
    with serve("-c", short) as server:
        silent = connect(server.place)
        eventually(lambda: server.metrics().total("connections_open") == 1, "a silent client")
        assert server.stop() == 0
        assert rest(silent) == b""


def test_stop_takes_shutdown_timeout_at_most(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[server]\nrequest_timeout = 60\nshutdown_timeout = 0.3\n")
    with serve("-c", file) as server:
        silent = connect(server.place)
        eventually(lambda: server.metrics().total("connections_open") == 1, "a silent client")
        assert server.stop() == 0
        assert rest(silent) == b""


def test_stop_kills_a_worker_that_hangs(short: Path) -> None:
    with serve("-c", short) as server:
        [worker] = server.workers
        with stopped(worker):
            assert server.stop() == 0
            assert not worker.alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_second_stop_signal_kills_what_is_left(patient: Path, number: signal.Signals) -> None:
    with serve("-c", patient) as server:
        children = server.children
        silent = connect(server.place)
        eventually(lambda: server.metrics().total("connections_open") == 1, "a silent client")
        server.process.send_signal(signal.SIGINT)
        eventually(lambda: "SIGINT: stopping" in server.log, "the first signal")
        server.process.send_signal(number)
        assert server.process.wait(5) == 0
        assert gone(*children)()
        with contextlib.suppress(ConnectionResetError):
            assert rest(silent) == b""


def test_sigint_to_the_whole_group_finishes_open_connections() -> None:
    number = signal.SIGINT
    with serve() as server:
        begun = connect(server.place, REQUEST[:10])
        eventually(lambda: server.metrics().total("parked_connections") == 1, "half a request")
        for child in server.children:
            child.kill(number)
        server.process.send_signal(number)
        eventually(lambda: f"{number.name}: stopping" in server.log, "the signal")
        begun.sendall(REQUEST[10:])
        assert rest(begun) == REPLY
        assert server.process.wait(5) == 0


def test_stop_while_a_worker_is_replaced_exits_with_0() -> None:
    with serve() as server:
        [worker] = server.workers
        worker.kill()
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_worker_killed_by_a_real_time_signal_is_replaced() -> None:
    """Python has names for the first and the last of these signals only."""
    with serve() as server:
        [worker] = server.workers
        worker.kill(signal.SIGRTMIN + 6)
        line = f"was killed by signal {signal.SIGRTMIN + 6}; its successor starts in"
        eventually(lambda: line in server.log, "the log line")
        assert ask(server.place) == REPLY


@pytest.mark.parametrize("deaths", [1, 4])
def test_stop_serves_the_queue_of_a_dead_worker(deaths: int) -> None:
    """After one death its successor has just begun to start; after four it waits for its turn."""
    with serve() as server:
        for death in range(1, deaths + 1):
            [worker] = eventually(lambda: server.up == 1 and server.workers, "a worker")
            worker.kill()
            eventually(lambda: not worker.alive, "its death")  # noqa: B023
            eventually(lambda n=death: server.log.count("was killed by SIGKILL") == n, "the log line")
        waiting = [connect(server.place, REQUEST) for _ in range(5)]
        server.process.send_signal(signal.SIGTERM)
        assert [rest(connection) for connection in waiting] == [REPLY] * 5
        assert server.process.wait(5) == 0


def test_sigquit_drains_sessions_beyond_shutdown_timeout_and_exits_with_0(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[server]\nshutdown_timeout = 0.2\ndrain_timeout = 60\n")
    with (
        socket.create_server(("127.0.0.1", 0)) as upstream,
        serve("-c", file, "--upstream", "{}:{}".format(*upstream.getsockname())) as server,
    ):
        client = connect(server.place, b"hello\n")
        session, _ = upstream.accept()
        server.process.send_signal(signal.SIGQUIT)
        eventually(lambda: "SIGQUIT: draining open connections" in server.log, "the signal")
        eventually(lambda: server.get("/-/ready").status == 503, "not ready")
        time.sleep(2.0)  # more than shutdown_timeout and KILL_AFTER
        session.sendall(b"still here\n")
        assert client.recv(100) == b"still here\n"
        with pytest.raises(ConnectionRefusedError):
            connect(server.place)
        client.close()
        session.close()
        assert server.process.wait(DEADLINE) == 0
        assert "ERROR" not in server.log


def test_sigterm_during_a_drain_stops_within_shutdown_timeout(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[server]\nshutdown_timeout = 0.2\ndrain_timeout = 60\n")
    with (
        socket.create_server(("127.0.0.1", 0)) as upstream,
        serve("-c", file, "--upstream", "{}:{}".format(*upstream.getsockname())) as server,
    ):
        client = connect(server.place, b"hello\n")
        session, _ = upstream.accept()
        server.process.send_signal(signal.SIGQUIT)
        eventually(lambda: "SIGQUIT: draining" in server.log, "the signal")
        assert server.stop() == 0
        client.close()
        session.close()


def test_admin_process_killed_during_a_drain_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text("[server]\nshutdown_timeout = 60\nrequest_timeout = 60\n")
    with serve("-c", file) as server:
        admin, begun = server.admin, connect(server.place, REQUEST[:10])
        eventually(lambda: server.metrics().total("parked_connections") == 1, "a connection that is open")
        server.process.send_signal(signal.SIGQUIT)
        eventually(lambda: "SIGQUIT: draining" in server.log, "the signal")
        assert admin
        admin.kill()
        eventually(lambda: "admin (pid" in server.log, "its death")
        eventually(lambda: server.admin not in (None, admin), "its successor")
        server.counts(1, "parked_connections")
        begun.close()
        assert server.process.wait(DEADLINE) == 0
        assert "Traceback" not in server.log


def test_sigusr1_is_logged_and_ignored() -> None:
    with serve() as server:
        server.process.send_signal(signal.SIGUSR1)
        eventually(lambda: "SIGUSR1: flashpol logs to stderr; nothing to reopen" in server.log, "the line")
        assert ask(server.place) == REPLY
        assert server.stop() == 0


def test_killed_arbiter_leaves_no_orphans(short: Path) -> None:
    with serve("-c", short, workers=2) as server:
        children = server.children
        assert len(children) == 3
        begun, silent = connect(server.place, REQUEST[:10]), connect(server.place)
        eventually(lambda: server.metrics().total("parked_connections") == 2, "two inside")
        server.process.kill()
        begun.sendall(REQUEST[10:])
        assert rest(begun) == REPLY, "open connections are finished nevertheless"
        eventually(gone(*children), "the end of all children")
        assert rest(silent) == b""


def test_killed_worker_loses_at_most_one_of_serial_connections() -> None:
    with serve(workers=2) as server:
        victim = server.workers[0]
        answers: list[bytes] = []
        done = threading.Event()

        def client() -> None:
            while not done.is_set():
                try:
                    answers.append(ask(server.place))
                except ConnectionResetError:
                    answers.append(b"")

        thread = threading.Thread(target=client)
        thread.start()
        try:
            eventually(lambda: len(answers) > 20, "answers")
            victim.kill()
            eventually(lambda: server.metrics().total("worker_restarts_total") == 1 and server.up == 2, "a successor")
            seen = len(answers)
            eventually(lambda: len(answers) > seen + 50, "more answers")
        finally:
            done.set()
            thread.join(5)
        assert len(answers) - answers.count(REPLY) <= 1


def test_admin_process_that_cannot_be_imported_leaves_the_workers_serving() -> None:
    """As after an upgrade whose files do not fit those that are loaded."""
    prelude = "import sys, flashpol.supervisor.generation as g; g.ADMIN_ATTEMPTS = 1\n"
    with Flashpol("--policy", POLICY, prelude=f"{prelude}sys.modules['flashpol.admin.endpoint'] = None") as server:
        eventually(lambda: "cannot import the admin process" in server.log, "its line")
        assert ask(server.place) == REPLY
        assert server.process.poll() is None
