"""Siblings stand in for a worker that does not accept, and only as long as it does not."""

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
from flashpol.supervisor.queue_failover import AGAIN, StandIns
from testkit.clients import REQUEST, connect, rest
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, Process, listening, stat

REPLY = POLICY.read_bytes() + b"\0"
CLIENTS = 32  # of which the kernel gives each of two workers a half


class Worker:
    """As much of a Child as is asked for."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.answering = True
        self.deaf = False
        self.told: list[tuple[Message, int]] = []

    def send(self, message: Message, sockets: Sequence[socket.socket] = ()) -> bool:
        self.told.append((message, len(sockets)))
        return not self.deaf


def arranged(count: int, listeners: int = 1) -> tuple[StandIns, list[Worker]]:
    """One socket for each worker and listener; nothing here looks into them."""
    workers = [Worker(1000 + slot) for slot in range(count)]
    sockets = [[object() for _ in range(count)] for _ in range(listeners)]
    return StandIns(workers, sockets), workers  # type: ignore[arg-type]


def told(workers: Sequence[Worker]) -> list[list[Message]]:
    """What each was told since."""
    found = [[message for message, _ in worker.told] for worker in workers]
    for worker in workers:
        worker.told.clear()
    return found


def test_nobody_is_told_anything_while_all_answer() -> None:
    one, workers = arranged(3)
    one.arrange()
    assert told(workers) == [[], [], []]


def test_the_next_one_stands_in_once_and_until_the_absent_one_answers() -> None:
    one, workers = arranged(3, listeners=2)
    workers[2].answering = False
    for _ in range(3):
        one.arrange()
    assert told(workers) == [[AdoptSockets(2, (0, 1))], [], []]
    workers[2].answering = True
    for _ in range(3):
        one.arrange()
    assert told(workers) == [[ReleaseSockets(2)], [], []]


def test_who_answers_no_more_is_stood_in_for_in_both_its_parts() -> None:
    one, workers = arranged(3)
    workers[0].answering = False
    one.arrange()
    workers[1].answering = False
    one.arrange()
    assert told(workers) == [[], [AdoptSockets(0, (0,))], [AdoptSockets(0, (0,)), AdoptSockets(1, (0,))]]
    # It was stopped and goes on: it still stands in, and hears of the end like the other.
    workers[1].answering = True
    one.arrange()
    workers[0].answering = True
    one.arrange()
    assert told(workers) == [[], [ReleaseSockets(0)], [ReleaseSockets(1), ReleaseSockets(0)]]


def test_a_successor_was_told_nothing() -> None:
    one, workers = arranged(2)
    workers[0].answering = False
    one.arrange()
    workers[1].pid = 2000
    one.arrange()
    assert told(workers) == [[], [AdoptSockets(0, (0,)), AdoptSockets(0, (0,))]]
    workers[1].pid, workers[0].answering = 3000, True
    one.arrange()
    assert told(workers) == [[], []]


def test_who_stands_in_is_told_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have had no room for the sockets."""
    clock = [100.0]
    monkeypatch.setattr("flashpol.supervisor.queue_failover.time.monotonic", lambda: clock[0])
    one, workers = arranged(3)
    workers[0].answering = False
    for _ in range(30):
        one.arrange()
        clock[0] += AGAIN / 10
    assert told(workers) == [[], [AdoptSockets(0, (0,))] * 3, []]


def test_a_stand_down_that_is_not_heard_is_said_again() -> None:
    one, workers = arranged(2)
    workers[0].answering = False
    one.arrange()
    workers[0].answering, workers[1].deaf = True, True
    one.arrange()
    workers[1].deaf = False
    for _ in range(3):
        one.arrange()
    assert told(workers) == [[], [AdoptSockets(0, (0,)), ReleaseSockets(0), ReleaseSockets(0)]]


def test_who_cannot_be_told_does_not_stand_in() -> None:
    one, workers = arranged(3)
    workers[0].answering, workers[1].deaf = False, True
    one.arrange()
    assert told(workers) == [[], [AdoptSockets(0, (0,))], [AdoptSockets(0, (0,))]]


def test_nobody_is_left() -> None:
    one, workers = arranged(2)
    for worker in workers:
        worker.answering = False
    one.arrange()
    assert told(workers) == [[], []]


def test_many_listeners_are_told_of_in_parts() -> None:
    one, workers = arranged(2, listeners=MAX_SOCKETS + 1)
    workers[0].answering = False
    one.arrange()
    assert [
        (len(message.listeners), count) for message, count in workers[1].told if isinstance(message, AdoptSockets)
    ] == [
        (MAX_SOCKETS, MAX_SOCKETS),
        (1, 1),
    ]


def test_a_socket_that_both_have_is_not_sent() -> None:
    shared = object()
    workers = [Worker(1), Worker(2)]
    workers[0].answering = False
    StandIns(workers, [[shared, shared]]).arrange()  # type: ignore[arg-type, list-item]
    assert told(workers) == [[], []]


# ------------------------------------------------------------------------------------------------------- real processes


def configured(folder: Path, server: str, listeners: int = 1, prelude: str = "") -> Flashpol:
    path = folder / "flashpol.toml"
    path.write_text(
        f'[server]\n{server}\n[policies.p]\nfile = "{POLICY}"\n'
        + '[[listeners]]\naddress = "127.0.0.1:0"\npolicy = "p"\n' * listeners
    )
    return Flashpol("-c", path, listen=(), workers=2, prelude=prelude)


@pytest.mark.parametrize("listeners", [1, 3])
def test_nobody_waits_for_a_worker_that_is_stopped(tmp_path: Path, listeners: int) -> None:
    with configured(tmp_path, "stall_timeout = 0", listeners) as server:
        stopped, sibling = server.workers
        before = listening(sibling.pid)
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2 * listeners, "the sibling stands in")
        for place in server.places:
            assert {rest(client) for client in [connect(place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        stopped.kill(signal.SIGCONT)
        eventually(lambda: listening(sibling.pid) == before, "the sibling stands down")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        metrics = server.metrics()
        assert metrics.total("replies_total") == CLIENTS * (listeners + 1)
        assert metrics.total("connections_accepted_total") == CLIENTS * (listeners + 1)
        assert metrics.total("worker_restarts_total") == 0
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


def test_nobody_waits_until_a_worker_that_is_stuck_is_killed(tmp_path: Path) -> None:
    """It does not let go of its CPU, or of a disk that is gone."""
    with configured(tmp_path, "stall_timeout = 6", prelude=STUCK) as server:
        before = server.workers
        eventually(lambda: max(len(listening(one.pid)) for one in before) == 2, "one of them stands in")
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


def test_nobody_waits_for_the_successor_of_a_worker_that_is_dead(tmp_path: Path) -> None:
    """Here it never comes up."""
    with configured(tmp_path, "shutdown_timeout = 0.2", prelude=LATE) as server:
        dead, sibling = server.workers
        dead.kill(signal.SIGKILL)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling stands in")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert server.up == 1
        assert server.stop() == 0


def test_nobody_waits_while_a_configuration_is_loaded(tmp_path: Path) -> None:
    with configured(tmp_path, "stall_timeout = 0\nshutdown_timeout = 0.2") as server:
        stopped, sibling = server.workers
        config = tmp_path / "flashpol.toml"
        os.mkfifo(tmp_path / "fifo")
        config.write_text(config.read_text().replace(str(POLICY), str(tmp_path / "fifo")))
        server.process.send_signal(signal.SIGHUP)
        eventually(
            lambda: stat(server.process.pid)[0] == "S" and not server.log.count("reloaded"), "it waits for the pipe"
        )
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling stands in")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert "reloaded" not in server.log
        assert server.stop() == 0


def test_who_has_no_room_for_the_sockets_is_asked_again(tmp_path: Path) -> None:
    with configured(tmp_path, "stall_timeout = 0") as server:
        stopped, sibling = server.workers
        before = resource.prlimit(sibling.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(sibling.pid, resource.RLIMIT_NOFILE, (len(os.listdir(f"/proc/{sibling.pid}/fd")), before[1]))
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: "cannot adopt 1 sockets of worker 0: out of file descriptors" in server.log, "the line")
        resource.prlimit(sibling.pid, resource.RLIMIT_NOFILE, before)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling stands in")
        time.sleep(2 * AGAIN)  # it is told again, and keeps no second copy
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


@pytest.mark.skipif(not shutil.which("ss"), reason="iproute2 is not installed")
def test_who_stood_in_and_ends_alone_leaves_the_siblings_queue_its_length(tmp_path: Path) -> None:
    with configured(tmp_path, "stall_timeout = 0") as server:
        stopped, sibling = server.workers
        port = server.place[1]
        [_, usual] = backlogs(port)
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling stands in")
        clients = [connect(server.place, REQUEST[:5]) for _ in range(CLIENTS)]
        eventually(lambda: server.metrics().total("connections_accepted_total") == CLIENTS, "all are inside")
        sibling.kill(signal.SIGTERM)
        eventually(lambda: not listening(sibling.pid), "it accepts no more")
        assert backlogs(port) == [0, usual]
        stopped.kill(signal.SIGCONT)
        for client in clients:
            client.sendall(REQUEST[5:])
        assert {rest(client) for client in clients} == {REPLY}


def test_a_worker_that_stood_in_finishes_what_it_took(tmp_path: Path) -> None:
    """The server ends, and so does who was stopped."""
    with configured(tmp_path, "stall_timeout = 0\nshutdown_timeout = 1") as server:
        stopped, sibling = server.workers
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling stands in")
        clients = [connect(server.place, REQUEST[:5]) for _ in range(CLIENTS)]
        eventually(lambda: server.metrics().total("connections_accepted_total") == CLIENTS, "all are inside")
        server.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.sendall(REQUEST[5:])
        assert {rest(client) for client in clients} == {REPLY}
        assert server.process.wait(10) == 0
        eventually(lambda: not stopped.alive, "its end")


def test_a_reload_while_one_stands_in(tmp_path: Path) -> None:
    with configured(tmp_path, "stall_timeout = 0\nshutdown_timeout = 0.5") as server:
        stopped, sibling = server.workers
        stopped.kill(signal.SIGSTOP)
        eventually(lambda: len(listening(sibling.pid)) == 2, "the sibling stands in")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "the reload")
        assert {rest(client) for client in [connect(server.place, REQUEST) for _ in range(CLIENTS)]} == {REPLY}
        assert not {Process(*one) for one in (stopped, sibling) if one.alive} & set(server.workers)
        assert server.stop() == 0
