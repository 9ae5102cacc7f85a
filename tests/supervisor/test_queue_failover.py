"""Queue failover: siblings serve the queues of a worker that does not accept, and only as long as it does not."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from flashpol.process.control import MAX_SOCKETS, AdoptSockets, Message, ReleaseSockets
from flashpol.supervisor.queue_failover import RESEND_AFTER, QueueFailover
from testkit.clients import REQUEST, connect, rest
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, Process, hanging_load, listening

REPLY = POLICY.read_bytes() + b"\0"
CLIENTS = 32  # of which the kernel gives each of two workers a half


class Worker:
    """As much of a Child as QueueFailover uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.answering = True
        self.blocked = False
        self.sent: list[tuple[Message, int]] = []

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> bool:
        self.sent.append((message, len(sockets)))
        return not self.blocked


def make(count: int, listeners: int = 1) -> tuple[QueueFailover, list[Worker]]:
    """One socket for each worker and listener; the sockets are not used."""
    workers = [Worker(1000 + slot) for slot in range(count)]
    sockets = [[object() for _ in range(count)] for _ in range(listeners)]
    return QueueFailover(workers, sockets), workers  # type: ignore[arg-type]


def sent_to(workers: Sequence[Worker]) -> list[list[Message]]:
    """The messages to each since the last call."""
    found = [[message for message, _ in worker.sent] for worker in workers]
    for worker in workers:
        worker.sent.clear()
    return found


def test_update_while_all_answer_sends_nothing() -> None:
    failover, workers = make(3)
    failover.update()
    assert sent_to(workers) == [[], [], []]


def test_update_sends_the_sockets_once_and_the_release_once() -> None:
    failover, workers = make(3, listeners=2)
    workers[2].answering = False
    for _ in range(3):
        failover.update()
    assert sent_to(workers) == [[AdoptSockets(2, (0, 1))], [], []]
    workers[2].answering = True
    for _ in range(3):
        failover.update()
    assert sent_to(workers) == [[ReleaseSockets(2)], [], []]


def test_update_when_the_adopter_fails_sends_both_slots_to_the_next() -> None:
    failover, workers = make(3)
    workers[0].answering = False
    failover.update()
    workers[1].answering = False
    failover.update()
    assert sent_to(workers) == [[], [AdoptSockets(0, (0,))], [AdoptSockets(0, (0,)), AdoptSockets(1, (0,))]]
    # It was stopped and goes on: it still holds the sockets, and is sent the release like the other.
    workers[1].answering = True
    failover.update()
    workers[0].answering = True
    failover.update()
    assert sent_to(workers) == [[], [ReleaseSockets(0)], [ReleaseSockets(1), ReleaseSockets(0)]]


def test_update_sends_to_the_adopters_successor_again() -> None:
    failover, workers = make(2)
    workers[0].answering = False
    failover.update()
    workers[1].pid = 2000
    failover.update()
    assert sent_to(workers) == [[], [AdoptSockets(0, (0,)), AdoptSockets(0, (0,))]]
    workers[1].pid, workers[0].answering = 3000, True
    failover.update()
    assert sent_to(workers) == [[], []]


def test_update_resends_the_sockets_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have had no room for the sockets."""
    clock = [100.0]
    monkeypatch.setattr("flashpol.supervisor.queue_failover.time.monotonic", lambda: clock[0])
    failover, workers = make(3)
    workers[0].answering = False
    for _ in range(30):
        failover.update()
        clock[0] += RESEND_AFTER / 10
    assert sent_to(workers) == [[], [AdoptSockets(0, (0,))] * 3, []]


def test_update_resends_a_release_that_was_not_sent() -> None:
    failover, workers = make(2)
    workers[0].answering = False
    failover.update()
    workers[0].answering, workers[1].blocked = True, True
    failover.update()
    workers[1].blocked = False
    for _ in range(3):
        failover.update()
    assert sent_to(workers) == [[], [AdoptSockets(0, (0,)), ReleaseSockets(0), ReleaseSockets(0)]]


def test_update_skips_a_sibling_whose_control_socket_is_blocked() -> None:
    failover, workers = make(3)
    workers[0].answering, workers[1].blocked = False, True
    failover.update()
    assert sent_to(workers) == [[], [AdoptSockets(0, (0,))], [AdoptSockets(0, (0,))]]


def test_update_without_a_sibling_that_answers_sends_nothing() -> None:
    failover, workers = make(2)
    for worker in workers:
        worker.answering = False
    failover.update()
    assert sent_to(workers) == [[], []]


def test_update_of_many_listeners_sends_several_messages() -> None:
    failover, workers = make(2, listeners=MAX_SOCKETS + 1)
    workers[0].answering = False
    failover.update()
    assert [
        (len(message.listeners), count) for message, count in workers[1].sent if isinstance(message, AdoptSockets)
    ] == [
        (MAX_SOCKETS, MAX_SOCKETS),
        (1, 1),
    ]


def test_update_does_not_send_a_socket_that_both_have() -> None:
    shared = object()
    workers = [Worker(1), Worker(2)]
    workers[0].answering = False
    QueueFailover(workers, [[shared, shared]]).update()  # type: ignore[arg-type, list-item]
    assert sent_to(workers) == [[], []]


# ------------------------------------------------------------------------------------------------------- real processes


def serving(folder: Path, server: str, listeners: int = 1, prelude: str = "") -> Flashpol:
    path = folder / "flashpol.toml"
    path.write_text(
        f'[server]\n{server}\n[policies.p]\nfile = "{POLICY}"\n'
        + '[[listeners]]\naddress = "127.0.0.1:0"\npolicy = "p"\n' * listeners
    )
    return Flashpol("-c", path, listen=(), workers=2, prelude=prelude)


@pytest.mark.parametrize("listeners", [1, 3])
def test_queue_of_a_stopped_worker_is_served_by_its_sibling(tmp_path: Path, listeners: int) -> None:
    with serving(tmp_path, "stall_timeout = 0", listeners) as server:
        stopped, sibling = server.workers
        before = listening(sibling.pid)
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2 * listeners, "the sibling adopts the sockets")
        for place in server.places:
            assert {rest(client) for client in [connect(place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        stopped.kill(signal.SIGCONT)
        eventually(lambda: listening(sibling.pid) == before, "the sibling releases them")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        server.counts(CLIENTS * (listeners + 1), "replies_total")
        server.counts(CLIENTS * (listeners + 1), "connections_accepted_total")
        server.counts(0, "worker_restarts_total")
        assert server.stop() == 0
        assert server.complaints == []


STUCK = """
import time
import flashpol.worker.worker as worker
real = worker.run
def run(slot, sockets, plan, shared, stop):
    if slot == 0:
        import gevent
        gevent.get_hub().loop.timer(0.5).start(time.sleep, 3600)
    real(slot, sockets, plan, shared, stop)
worker.run = run
"""


@pytest.mark.slow
def test_queue_of_a_stalled_worker_is_served_before_it_is_killed(tmp_path: Path) -> None:
    """It does not let go of its CPU, or of a disk that is gone."""
    with serving(tmp_path, "stall_timeout = 6", prelude=STUCK) as server:
        before = server.workers
        eventually(lambda: max(len(listening(one.pid)) for one in before) == 2, "one of them adopts the sockets")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert [one.alive for one in before] == [True, True]


LATE = """
import time
import flashpol.worker.worker as worker
real = worker.run
def run(slot, sockets, plan, shared, stop):
    if shared.process(slot).restarts:
        time.sleep(3600)
    real(slot, sockets, plan, shared, stop)
worker.run = run
"""


@pytest.mark.slow
def test_queue_of_a_dead_worker_is_served_before_its_successor_is_up(tmp_path: Path) -> None:
    """Here it never comes up."""
    with serving(tmp_path, "shutdown_timeout = 0.2", prelude=LATE) as server:
        dead, sibling = server.workers
        dead.kill(signal.SIGKILL)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling adopts the sockets")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert server.up == 1
        assert server.stop() == 0


@pytest.mark.slow
def test_queue_of_a_stopped_worker_is_served_while_a_load_hangs(tmp_path: Path) -> None:
    with serving(tmp_path, "stall_timeout = 0\nshutdown_timeout = 0.2", prelude=hanging_load(tmp_path)) as server:
        stopped, sibling = server.workers
        (tmp_path / "hang").touch()
        server.process.send_signal(signal.SIGHUP)
        eventually((tmp_path / "hanging").exists, "the load")
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling adopts the sockets")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert "reloaded" not in server.log
        assert server.stop() == 0


@pytest.mark.slow
def test_sibling_without_descriptors_is_sent_the_sockets_again(tmp_path: Path) -> None:
    with serving(tmp_path, "stall_timeout = 0") as server:
        stopped, sibling = server.workers
        before = resource.prlimit(sibling.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(sibling.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{sibling.pid}/fd")), before[1]))
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: "cannot adopt 1 sockets of worker 0: out of file descriptors" in server.log, "the line")
        resource.prlimit(sibling.pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling adopts the sockets")
        time.sleep(2 * RESEND_AFTER)  # the sockets are sent again, and it keeps no second copy
        assert len([name for name in descriptors_of(sibling.pid) if name in listening(sibling.pid)]) == 2
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        stopped.kill(signal.SIGCONT)


def descriptors_of(pid: int) -> list[str]:
    """Also those that are the same."""
    folder = Path(f"/proc/{pid}/fd")
    return [os.readlink(each) for each in folder.iterdir()]


def backlogs(port: int) -> list[int]:
    said = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return sorted(int(line.split()[2]) for line in said.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("ss"), reason="iproute2 is not installed")
def test_sibling_that_ends_keeps_the_backlog_of_adopted_queues(tmp_path: Path) -> None:
    with serving(tmp_path, "stall_timeout = 0") as server:
        stopped, sibling = server.workers
        port = server.place[1]
        [_, usual] = backlogs(port)
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling adopts the sockets")
        clients = [connect(server.place, REQUEST[:5]) for _ in range(CLIENTS)]
        eventually(lambda: server.metrics().total("connections_accepted_total") == CLIENTS, "all are inside")
        sibling.kill(signal.SIGTERM)
        eventually(lambda: not listening(sibling.pid), "it accepts no more")
        assert backlogs(port) == [0, usual]
        stopped.kill(signal.SIGCONT)
        for client in clients:
            client.sendall(REQUEST[5:])
        assert {rest(client) for client in clients} == {REPLY}


@pytest.mark.slow
def test_sibling_finishes_adopted_connections_when_the_server_stops(tmp_path: Path) -> None:
    """The stopped worker is killed in the end."""
    with serving(tmp_path, "stall_timeout = 0\nshutdown_timeout = 1") as server:
        stopped, sibling = server.workers
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling adopts the sockets")
        clients = [connect(server.place, REQUEST[:5]) for _ in range(CLIENTS)]
        eventually(lambda: server.metrics().total("connections_accepted_total") == CLIENTS, "all are inside")
        server.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.sendall(REQUEST[5:])
        assert {rest(client) for client in clients} == {REPLY}
        assert server.process.wait(10) == 0
        eventually(lambda: not stopped.alive, "its end")


@pytest.mark.slow
def test_reload_while_a_sibling_holds_adopted_sockets(tmp_path: Path) -> None:
    with serving(tmp_path, "stall_timeout = 0\nshutdown_timeout = 0.5") as server:
        stopped, sibling = server.workers
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling adopts the sockets")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "the reload")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert not {Process(*one) for one in (stopped, sibling) if one.alive} & set(server.workers)
        assert server.stop() == 0
