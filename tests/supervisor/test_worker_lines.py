"""Lines between workers: which worker gets one to which, and what remains of them when a worker ends."""

import errno
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from flashpol.counters.shared import SharedCounters
from flashpol.process.control import MAX_SOCKETS, Message, PeerLines
from flashpol.process.lines import INCARNATIONS
from flashpol.process.privileges import Privileges
from flashpol.supervisor.child import Child
from flashpol.supervisor.worker_lines import RETRY_AFTER, WorkerLines
from testkit.clients import REQUEST, connect
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, Process, descriptors


class Worker:
    """As much of a Child as WorkerLines uses. It keeps copies of the lines that it is sent."""

    def __init__(self) -> None:
        self.incarnation = 0
        self.reachable = True
        self.blocked = False
        self.lines: dict[int, socket.socket] = {}  # by incarnation
        self.messages: list[int] = []  # how many lines each had

    def send(self, message: Message, files: Sequence[socket.socket] = ()) -> bool:
        assert isinstance(message, PeerLines)
        if self.blocked:
            return False
        self.messages.append(len(files))
        for incarnation, sock in zip(message.incarnations, files, strict=True):
            assert not sock.getblocking()
            if incarnation in self.lines:
                self.lines[incarnation].close()
            self.lines[incarnation] = sock.dup()
        return True

    def close(self) -> None:
        """The process ends."""
        for line in self.lines.values():
            line.close()


class World:
    """WorkerLines and workers, and a clock."""

    def __init__(self) -> None:
        self.lines = WorkerLines()
        self.workers: list[Worker] = []
        self.now = 1000.0

    def start(self, count: int = 1) -> list[Worker]:
        started = [Worker() for _ in range(count)]
        for worker in started:
            self.lines.enter(worker)  # type: ignore[arg-type]
            self.lines.connect(worker)  # type: ignore[arg-type]
        self.workers += started
        return started

    def end(self, worker: Worker) -> None:
        worker.close()
        worker.reachable = False
        self.lines.leave(worker)  # type: ignore[arg-type]

    def retry(self, seconds: float = RETRY_AFTER) -> None:
        self.now += seconds
        self.lines.retry()


@pytest.fixture
def world(no_leaked_files: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    one = World()
    monkeypatch.setattr("flashpol.supervisor.worker_lines.time.monotonic", lambda: one.now)
    yield one
    for worker in one.workers:
        worker.close()


def talk(one: Worker, other: Worker) -> bool:
    """The two have a line, and each calls it by the incarnation of the other."""
    there, back = one.lines[other.incarnation], other.lines[one.incarnation]
    there.send(b"there")
    back.send(b"back")
    return (back.recv(9), there.recv(9)) == (b"there", b"back")


def ended(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False


def test_connect_gives_each_pair_of_workers_one_line(world: World) -> None:
    a, b, c = world.start(3)
    assert [worker.incarnation for worker in (a, b, c)] == [0, 1, 2]
    assert [set(worker.lines) for worker in (a, b, c)] == [{1, 2}, {0, 2}, {0, 1}]
    assert talk(a, b)
    assert talk(a, c)
    assert talk(b, c)


def test_successor_gets_another_incarnation_and_lines_to_those_that_run(world: World) -> None:
    a, b, c = world.start(3)
    world.end(b)
    assert ended(a.lines[1])
    assert ended(c.lines[1])
    world.lines.enter(b)  # type: ignore[arg-type] # the same Child, as in a Generation
    b.reachable, b.lines = True, {}
    world.lines.connect(b)  # type: ignore[arg-type]
    assert (b.incarnation, set(b.lines)) == (3, {0, 2})
    assert talk(a, b)
    assert talk(c, b)


def test_incarnations_wrap_round_and_skip_those_of_workers_that_run(world: World) -> None:
    world.start(2)
    for _ in range(INCARNATIONS - 2):
        passing = Worker()
        world.lines.enter(passing)  # type: ignore[arg-type]
        world.lines.leave(passing)  # type: ignore[arg-type]
    assert passing.incarnation == INCARNATIONS - 1
    [third] = world.start()
    assert (third.incarnation, set(third.lines)) == (2, {0, 1})


def test_worker_that_does_not_need_lines_gets_none(world: World) -> None:
    plain = Worker()
    world.lines.enter(plain)  # type: ignore[arg-type]
    a, b = world.start(2)
    assert (plain.lines, set(a.lines), set(b.lines)) == ({}, {2}, {1})


def test_worker_that_was_stopped_gets_no_line(world: World) -> None:
    a, b = world.start(2)
    a.reachable = False
    [c] = world.start()
    world.retry()
    assert (set(a.lines), set(c.lines)) == ({1}, {1})
    assert talk(b, c)


def test_line_to_a_worker_that_does_not_read_is_made_later(world: World) -> None:
    a, b = world.start(2)
    a.blocked = True
    [c] = world.start()
    assert (set(a.lines), set(c.lines)) == ({1}, {1})
    a.blocked = False
    world.retry(RETRY_AFTER / 2)
    assert set(c.lines) == {1}
    world.retry()
    assert talk(a, c)
    assert talk(b, c)
    sent = [worker.messages[:] for worker in world.workers]
    world.retry()
    assert [worker.messages for worker in world.workers] == sent, "nothing is missing any more"


def test_lines_that_the_new_worker_did_not_get_have_ended_and_are_made_again(world: World) -> None:
    [a] = world.start()
    b = Worker()
    b.blocked = True
    world.workers.append(b)
    world.lines.enter(b)  # type: ignore[arg-type]
    world.lines.connect(b)  # type: ignore[arg-type]
    assert ended(a.lines[1])
    b.blocked = False
    world.retry()
    assert talk(a, b)


def test_missing_line_of_a_worker_that_has_ended_is_forgotten(world: World) -> None:
    a, b = world.start(2)
    a.blocked = True
    world.start()
    world.end(a)
    a.blocked, a.reachable, a.messages = False, True, []
    world.retry()
    assert a.messages == []
    assert b.messages == [1, 1]


def test_connect_without_descriptors_makes_the_lines_later(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = world.start(2)
    real, left = socket.socketpair, [1]

    def fail(*arguments: int) -> tuple[socket.socket, socket.socket]:
        if not left:
            raise OSError(errno.EMFILE, "Too many open files")
        left.pop()
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socketpair", fail)
        [c] = world.start()
    assert set(c.lines) == {0}
    assert "cannot make a line between two workers: Too many open files; trying again" in caplog.text
    world.retry()
    assert talk(a, c)
    assert talk(b, c)


def test_many_lines_come_in_several_messages(world: World) -> None:
    for _ in range(MAX_SOCKETS + 1):
        [worker] = world.start()
        worker.reachable = False  # so that they have none to each other
    for worker in world.workers:
        worker.reachable = True
    [last] = world.start()
    assert last.messages == [MAX_SOCKETS, 1]
    assert talk(world.workers[MAX_SOCKETS], last)


def test_connect_to_a_process_with_a_full_control_socket_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    lines, counters = WorkerLines(), SharedCounters(2, 1)

    def sleep(control: object) -> None:
        time.sleep(60)

    deaf, other = (Child(f"worker {slot}", lambda: sleep, counters.process(slot)) for slot in range(2))
    before = len(os.listdir("/proc/self/fd"))
    try:
        for child in (deaf, other):
            lines.enter(child)
            child.start(0.0, lambda: [each.close_control() for each in (deaf, other)], Privileges())
        lines.connect(deaf)
        while deaf.send(PeerLines(())):
            pass
        lines.connect(other)
        lines.retry()
        assert "cannot send a control message to worker 0" in caplog.text
    finally:
        for child in (deaf, other):
            child.kill()
            eventually(partial(reaped, child.pid), "the end")
            child.close_control()
    assert len(os.listdir("/proc/self/fd")) == before


def reaped(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


# ------------------------------------------------------------------------------------------------------- real processes


def keeping(folder: Path, seen_as: Path | None = None) -> str:
    """A prelude: the workers keep their lines, send their incarnation over each, and write what they have into the
    folder, a file each. seen_as: the folder in a chroot."""
    return f"""
import json, os
import flashpol.worker.service as service
import flashpol.worker.worker as worker
from flashpol.hub import Readable

own, heard, ended, watchers, lines_now = [], {{}}, [], [], {{}}
def save():
    path = {str(seen_as or folder)!r} + "/" + str(os.getpid())
    with open(path + ".new", "w") as file:
        json.dump([own[0], heard, ended], file)
    os.rename(path + ".new", path)

def keep(self, incarnation, line):
    assert not os.get_blocking(line.fileno()) and not os.get_inheritable(line.fileno())
    def read():
        try:
            data = line.recv(100)
        except ConnectionResetError:  # it has ended before it read everything
            data = b""
        if data:
            heard[incarnation] = int(data)
        else:
            ended.append(incarnation)
            if lines_now[incarnation] is line:
                heard.pop(incarnation, None)
            watcher.close()
            line.close()
        save()
    watcher = Readable(line.fileno(), read, "a line")
    watcher.start()
    watchers.append(watcher)
    lines_now[incarnation] = line
    try:
        line.send(str(own[0]).encode())
    except BrokenPipeError:
        pass  # it has ended
service.Service.add_line = keep

real = worker.run
def run(*arguments):
    own.append(arguments[-1].incarnation)
    save()
    real(*arguments)
worker.run = run
"""


class Seen(NamedTuple):
    """What a worker wrote last."""

    incarnation: int
    lines: set[int]  # the incarnations that it heard from, each over the line to it
    ended: set[int]


class Site:
    """A server whose workers keep their lines."""

    def __init__(self, folder: Path, *, rtmpt: bool = True, server: str = "", seen_as: Path | None = None) -> None:
        self.states = folder / "states"
        self.states.mkdir()
        self.states.chmod(0o777)
        self._config, self._server = folder / "flashpol.toml", server
        self._prelude = keeping(self.states, seen_as)
        self.configure(rtmpt=rtmpt)

    def configure(self, *, rtmpt: bool) -> None:
        self._config.write_text(
            f"[server]\nrequest_timeout = 60\nshutdown_timeout = 60\n{self._server}\n"  # old workers stay
            f'[policies.p]\nfile = "{POLICY}"\n'
            '[[listeners]]\naddress = "127.0.0.1:0"\npolicy = "p"\nupstream = "127.0.0.1:1"\n'
            f"rtmpt = {str(rtmpt).lower()}\n"
        )

    def serve(self, workers: int = 2) -> Flashpol:
        return Flashpol("-c", self._config, listen=(), workers=workers, prelude=self._prelude)

    def seen(self, worker: Process) -> Seen | None:
        try:
            incarnation, heard, ended = json.loads((self.states / str(worker.pid)).read_text())
        except FileNotFoundError:
            return None
        assert all(int(name) == number for name, number in heard.items()), "each line leads to whom it is said to"
        return Seen(incarnation, set(heard.values()), set(ended))

    def connected(self, workers: Sequence[Process]) -> list[Seen]:
        """Wait until each worker has a line to each other one, and no more."""

        def all_have() -> list[Seen]:
            found = [seen for worker in workers if (seen := self.seen(worker))]
            numbers = {each.incarnation for each in found}
            complete = len(numbers) == len(workers)
            return found if complete and all(each.lines == numbers - {each.incarnation} for each in found) else []

        return eventually(all_have, "lines between all workers")


def reload(server: Flashpol) -> None:
    before = server.log.count(" reloaded: ")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: server.log.count(" reloaded: ") == before + 1, "the reload")


def busy(server: Flashpol, stack: ExitStack) -> list[socket.socket]:
    """Half requests, which keep all workers from ending after a reload."""
    held = [stack.enter_context(connect(server.place, REQUEST[:5])) for _ in range(24)]
    open_now: Callable[[], float] = lambda: server.metrics().total("parked_connections")  # noqa: E731
    eventually(lambda: open_now() == len(held), "the half requests")
    return held


def test_killed_worker_ends_its_lines_and_its_successor_has_lines_to_all(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with site.serve(workers=3) as server:
        first, *others = server.workers
        before = site.connected([first, *others])
        assert sorted(seen.incarnation for seen in before) == [0, 1, 2]
        [dead] = [seen.incarnation for seen in before if seen == site.seen(first)]
        first.kill()
        after = site.connected(server.replaced(first, 3))
        assert {seen.incarnation for seen in after} == {0, 1, 2, 3} - {dead}
        assert [seen.ended for seen in after if seen.incarnation != 3] == [{dead}, {dead}]
        assert [seen.ended for seen in after if seen.incarnation == 3] == [set()]
        assert server.stop() == 0
        assert not [line for line in server.complaints if "SIGKILL" not in line]


def test_worker_without_descriptors_logs_that_it_lacks_a_line(tmp_path: Path) -> None:
    """The other worker sees the end of it."""
    site = Site(tmp_path)
    with site.serve() as server:
        full, dead = server.workers
        site.connected([full, dead])
        # Its line to the dead one is still open when the next one comes, or leaves a descriptor that another takes.
        count = len(os.listdir(f"/proc/{full.pid}/fd")) - 1
        resource.prlimit(full.pid, resource.RLIMIT_NOFILE, (count, count))
        dead.kill()
        eventually(lambda: "1 lines to other workers are missing: out of file descriptors" in server.log, "the line")
        [successor] = [worker for worker in server.workers if worker != full]
        eventually(lambda: (seen := site.seen(successor)) and seen.ended == {0}, "the end of the line")


def test_reload_gives_new_workers_lines_to_those_that_drain(tmp_path: Path) -> None:
    site = Site(tmp_path)
    with ExitStack() as stack, site.serve() as server:
        old = server.workers
        held = busy(server, stack)
        reload(server)
        new = [worker for worker in server.workers if worker not in old]
        assert {seen.incarnation for seen in site.connected([*old, *new])} == {0, 1, 2, 3}
        # A worker that is replaced gets lines to both generations.
        new[0].kill()
        eventually(lambda: len({*server.workers} - {*old, *new}) == 1, "its successor")
        new = [*({*server.workers} - {*old, new[0]})]
        assert 4 in {seen.incarnation for seen in site.connected([*old, *new])}
        for client in held:
            client.close()
        eventually(lambda: not any(worker.alive for worker in old), "the end of the old workers")
        assert all(seen.ended >= {0, 1} for seen in site.connected(new))
        assert server.stop() == 0


def test_reload_that_switches_tunnels_on_gives_lines_to_the_new_workers_only(tmp_path: Path) -> None:
    site = Site(tmp_path, rtmpt=False)
    with ExitStack() as stack, site.serve() as server:
        old = server.workers
        busy(server, stack)
        site.configure(rtmpt=True)
        reload(server)
        new = [worker for worker in server.workers if worker not in old]
        assert {seen.incarnation for seen in site.connected(new)} == {2, 3}
        assert [seen and seen.lines | seen.ended for seen in map(site.seen, old)] == [set(), set()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root folder")
def test_workers_of_another_user_in_a_chroot_have_lines(tmp_path: Path) -> None:
    settings = f'user = "nobody"\nchroot = {json.dumps(str(tmp_path))}\n'
    site = Site(tmp_path, server=settings, seen_as=Path("/states"))
    tmp_path.chmod(0o755)
    with site.serve() as server:
        site.connected(server.workers)
        server.workers[0].kill()
        eventually(lambda: server.metrics().total("worker_restarts_total") == 1, "its end")
        eventually(lambda: len(server.workers) == 2, "its successor")
        site.connected(server.workers)


@pytest.mark.slow
def test_arbiter_has_the_same_descriptors_after_many_reloads(tmp_path: Path) -> None:
    """Workers die meanwhile too."""
    site = Site(tmp_path)
    with site.serve(workers=3) as server:
        site.connected(server.workers)
        before = len(descriptors(server.process.pid))
        for number in range(20):
            reload(server)
            if number % 5 == 0:
                server.workers[0].kill()
        eventually(lambda: len(server.children) == 4, "the end of the old processes")
        workers = eventually(lambda: len(found := server.workers) == 3 and found, "three workers")
        site.connected(workers)
        eventually(lambda: len(descriptors(server.process.pid)) == before, "the same descriptors")
        eventually(lambda: len({len(descriptors(worker.pid)) for worker in workers}) == 1, "as many in each worker")
        assert server.stop() == 0
