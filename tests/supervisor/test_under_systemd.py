"""What a server notifies systemd of: ready, reloading, stopping, and that a worker's event loop turns."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.clients import connect
from testkit.polling import DEADLINE, eventually
from testkit.processes import PATIENT, POLICY, Flashpol, hanging_load, status

WATCHDOG_USEC = 200_000  # so it expects to hear of the server twice in this time
SILENCE = 10 * WATCHDOG_USEC / 1e6

GRANT = '<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="{}"/></cross-domain-policy>'


class Manager:
    """systemd's end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.address))

    def hear(self, seconds: float = DEADLINE) -> dict[str, str]:
        """The next message. Raises TimeoutError."""
        self.socket.settimeout(seconds)
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def hear_of(self, variable: str) -> dict[str, str]:
        """The next message with this variable; others before it can only be pings."""
        while variable not in (heard := self.hear()):
            assert heard == {"WATCHDOG": "1"}
        return heard

    def drain(self) -> None:
        """Forget what was sent so far."""
        self.socket.setblocking(False)
        while True:
            try:
                self.socket.recv(4096)
            except BlockingIOError:
                return


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    with manager.socket:
        yield manager


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.xml"
    path.write_text(GRANT.format(1935))
    return path


def serve(manager: Manager, policy: Path, workers: int = 1, prelude: str = "", **variables: str) -> Flashpol:
    environ = {**os.environ, "NOTIFY_SOCKET": str(manager.address), **variables}
    return Flashpol("-c", PATIENT, "--policy", policy, workers=workers, prelude=prelude, env=environ)


def test_server_notifies_ready_reloading_and_stopping(manager: Manager, policy: Path) -> None:
    with serve(manager, policy) as server:
        assert manager.hear() == {"READY": "1", "STATUS": "1 worker, 1 listener"}

        policy.write_text(GRANT.format(1936))
        before = time.monotonic_ns() // 1000
        server.process.send_signal(signal.SIGHUP)
        reloading = manager.hear()
        assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC", "STATUS"}
        # systemd takes for the answer to its SIGHUP only what was sent after it, by this clock.
        assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert manager.hear() == {"READY": "1", "STATUS": "1 worker, 1 listener"}

        policy.write_text("<oops")
        server.process.send_signal(signal.SIGHUP)
        assert manager.hear()["RELOADING"] == "1"
        assert manager.hear() == {"READY": "1", "STATUS": "1 worker, 1 listener; the last reload failed"}

        server.process.send_signal(signal.SIGTERM)
        assert manager.hear()["STOPPING"] == "1"
        assert server.process.wait(DEADLINE) == 0


@pytest.mark.slow
def test_server_feeds_the_watchdog_while_one_worker_turns(manager: Manager, policy: Path) -> None:
    with serve(manager, policy, workers=2, WATCHDOG_USEC=str(WATCHDOG_USEC)) as server:
        manager.hear_of("READY")
        assert [manager.hear() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3

        one, *others = server.workers
        for worker in others:
            worker.kill(signal.SIGSTOP)
        eventually(lambda: server.up == 1, "a stalled worker")
        manager.drain()
        assert manager.hear() == {"WATCHDOG": "1"}, "one worker is enough"

        one.kill(signal.SIGSTOP)
        eventually(lambda: server.up == 0, "two of them")
        manager.drain()
        with pytest.raises(TimeoutError):
            manager.hear(SILENCE)

        one.kill(signal.SIGCONT)
        assert manager.hear() == {"WATCHDOG": "1"}
        for worker in others:
            worker.kill(signal.SIGCONT)


def test_server_feeds_the_watchdog_while_a_load_hangs(manager: Manager, policy: Path, tmp_path: Path) -> None:
    with serve(manager, policy, prelude=hanging_load(tmp_path), WATCHDOG_USEC=str(WATCHDOG_USEC)) as server:
        manager.hear_of("READY")
        (tmp_path / "hang").touch()
        server.process.send_signal(signal.SIGHUP)
        manager.hear_of("RELOADING")
        eventually((tmp_path / "hanging").exists, "the load")
        manager.drain()
        assert [manager.hear() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
        (tmp_path / "hang").unlink()
        manager.hear_of("READY")


def test_server_that_drains_feeds_the_watchdog_and_is_not_stopping(manager: Manager, tmp_path: Path) -> None:
    """After STOPPING=1 systemd would kill it in TimeoutStopSec, which is less than drain_timeout."""
    config = tmp_path / "flashpol.toml"
    config.write_text("[server]\nshutdown_timeout = 0.2\nrequest_timeout = 60\n")
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        where = "{}:{}".format(*upstream.getsockname())
        arguments = ("-c", config, "--policy", POLICY, "--upstream", where)
        environ = {**os.environ, "NOTIFY_SOCKET": str(manager.address), "WATCHDOG_USEC": str(WATCHDOG_USEC)}
        with Flashpol(*arguments, env=environ) as server, connect(server.place, b"hello\n") as client:
            session, _ = upstream.accept()
            manager.hear_of("READY")
            server.process.send_signal(signal.SIGQUIT)
            assert manager.hear_of("STATUS") == {"STATUS": "draining open connections"}
            assert [manager.hear() for _ in range(5)] == [{"WATCHDOG": "1"}] * 5
            session.close()
            client.close()
            assert manager.hear_of("STOPPING")["STOPPING"] == "1"
            assert server.process.wait(DEADLINE) == 0


def test_server_does_not_feed_the_watchdog_of_another_process(manager: Manager, policy: Path) -> None:
    with serve(manager, policy, WATCHDOG_USEC=str(WATCHDOG_USEC), WATCHDOG_PID="1"):
        manager.hear_of("READY")
        with pytest.raises(TimeoutError):
            manager.hear(SILENCE)


def test_only_the_arbiter_notifies(manager: Manager, policy: Path) -> None:
    """NotifyAccess=main, the default, refuses the others, and systemd would log each time."""
    manager.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    manager.socket.settimeout(DEADLINE)
    with serve(manager, policy, WATCHDOG_USEC=str(WATCHDOG_USEC)) as server:
        for _ in range(4):
            _, [(_, _, credentials)], _, _ = manager.socket.recvmsg(4096, socket.CMSG_SPACE(12))
            assert int.from_bytes(credentials[:4], "little") == server.process.pid
        assert status(server.process.pid)["PPid"] == str(os.getpid())
