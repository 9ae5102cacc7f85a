"""A worker that does not serve is replaced, also if its event loop turns. Without memory a worker ends at once.

What breaks is injected into worker 0 of a real server, into its first process, when the test says so.
"""

import json
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from flashpol.process.out_of_memory import OUT_OF_MEMORY
from testkit.application import Application, application, receive
from testkit.clients import BARE, REQUEST, ask, connect, deliver, reset, rest
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, Flashpol, Process

REPLY = POLICY.read_bytes() + b"\0"
STALL = 1.0  # seconds
CLIENTS = 32  # of which the kernel gives each of two workers a half

# `broken()` runs in the hub of worker 0 once the file exists.
INJECTION = """
import pathlib
import gevent
import flashpol.hub as hub
import flashpol.worker.worker as worker

def fail():
    raise MemoryError

def broken():
    pathlib.Path({file!r} + ".done").touch()
    {code}

def wait_and_break():
    while not pathlib.Path({file!r}).exists():
        gevent.sleep(0.01)
    gevent.get_hub().loop.run_callback(broken)

real = worker.run
def run(slot, sockets, plan, shared, control):
    if slot == 0 and not shared.process(slot).restarts:
        gevent.spawn(wait_and_break)
    real(slot, sockets, plan, shared, control)
worker.run = run
"""
EACH = """
    for each in hub.started():
        if {what!r} in each.what:
            {how}
"""
STOPPED, IDLE = "each._watcher.stop()", "each._watcher.callback = lambda: None"


class Breakable:
    """A server of a policy listener and a shared one, the worker that will break, and the application."""

    def __init__(self, server: Flashpol, file: Path, behind: Application) -> None:
        self.server = server
        self.worker = server.workers[0]
        self.application = behind
        self._file = file

    def break_it(self) -> None:
        self._file.touch()
        eventually(self._file.with_suffix(".done").exists, "it is broken")

    def serves(self) -> None:
        """Both listeners serve, whole and split requests and sessions."""
        policy, shared = self.server.places
        for place in (policy, shared):
            assert ask(place) == REPLY
            client = connect(place)
            deliver(client, BARE[:9])
            client.sendall(REQUEST[9:])
            assert rest(client) == REPLY
        with connect(shared, b"hello") as client, self.application.accept() as session:
            assert receive(session, 5) == b"hello"
            session.sendall(b"welcome")
            assert receive(client, 7) == b"welcome"

    def is_replaced(self) -> None:
        eventually(lambda: self.server.metrics().total("worker_restarts_total") == 1, "its successor")
        assert not self.worker.alive
        eventually(lambda: self.server.get("/-/ready").status == 200, "the server is ready")

    def events(self, event: str) -> list[dict[str, object]]:
        # The other lines are of the interpreter, if greenlet aborts for want of memory.
        lines = [json.loads(line) for line in self.server.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


@contextmanager
def breakable(
    folder: Path, code: str, workers: int = 1, server: str = f"stall_timeout = {STALL}"
) -> Iterator[Breakable]:
    with application() as behind:
        config, file = folder / "flashpol.toml", folder / "now"
        config.write_text(
            f'[server]\nlog_format = "json"\n{server}\n[policies.p]\nfile = "{POLICY}"\n'
            '[[listeners]]\nname = "policy"\naddress = "127.0.0.1:0"\npolicy = "p"\n'
            f'[[listeners]]\nname = "shared"\naddress = "127.0.0.1:0"\npolicy = "p"\nupstream = "{behind.remote}"\n'
        )
        prelude = INJECTION.format(code=code.strip(), file=str(file))
        with Flashpol("-c", config, listen=(), workers=workers, prelude=prelude) as running:
            yield Breakable(running, file, behind)


def breaking(what: str, how: str) -> str:
    return EACH.format(what=what, how=how)


# ---------------------------------------------------------------------------------------------- watchers that are ended


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "how"),
    [
        ("waiting clients", STOPPED),
        ("waiting clients", IDLE),
        ("sessions", STOPPED),
        ("sessions", IDLE),
        ("clients of listener policy", STOPPED),
        ("messages of the arbiter", STOPPED),
    ],
)
def test_worker_with_an_ended_watcher_is_replaced_without_a_client(tmp_path: Path, what: str, how: str) -> None:
    """Its event loop turns, and its other watchers serve; so the server is not ready before it is replaced."""
    with breakable(tmp_path, breaking(what, how)) as one:
        one.serves()
        one.break_it()
        eventually(lambda: one.server.get("/-/ready").status == 503, "not ready")
        one.is_replaced()
        assert [line["child_pid"] for line in one.events("stalled")] == [one.worker.pid]
        one.serves()


def test_worker_whose_acceptor_does_nothing_is_replaced_once_clients_wait(tmp_path: Path) -> None:
    with breakable(tmp_path, breaking("clients of listener", IDLE)) as one:
        one.break_it()
        clients = [connect(one.server.place, REQUEST) for _ in range(CLIENTS)]
        assert {rest(client) for client in clients} == {REPLY}
        one.is_replaced()
        one.serves()


@pytest.mark.slow
def test_queue_of_a_worker_that_does_not_accept_is_served_by_its_sibling(tmp_path: Path) -> None:
    """Long before it is replaced."""
    server = "stall_timeout = 4\nshutdown_timeout = 0.2"
    with breakable(tmp_path, breaking("clients of listener", STOPPED), 2, server) as one:
        one.break_it()
        eventually(lambda: one.server.up == 1, "one of two does not serve")
        clients = [connect(one.server.place, REQUEST) for _ in range(CLIENTS)]
        assert {rest(client) for client in clients} == {REPLY}
        assert one.server.get("/-/ready").status == 200, "the other one serves"


def test_missing_proof_is_logged_by_the_worker(tmp_path: Path) -> None:
    with breakable(tmp_path, breaking("sessions", STOPPED), server="stall_timeout = 4") as one:
        one.break_it()
        [line] = eventually(lambda: one.events("not-serving"), "the line")
        assert (line["process"], line["what"]) == ("worker-0", "sessions")


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["max_connections = 4", "max_worker_connections = 4"])
def test_worker_at_its_limits_proves_that_it_serves(tmp_path: Path, settings: str) -> None:
    with breakable(tmp_path, "pass", server=f"stall_timeout = 0.4\n{settings}") as one, ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(one.server.place))
        lasts(one, 1.5)


@pytest.mark.slow
def test_worker_without_descriptors_proves_that_it_serves(tmp_path: Path) -> None:
    """Accepting pauses again and again."""
    with breakable(tmp_path, "pass", server="stall_timeout = 0.4\nterminator_grace = 60\nlinger_timeout = 60") as one:
        status = one.worker
        used = {int(path.name) for path in Path(f"/proc/{status.pid}/fd").iterdir()}
        limits = resource.prlimit(status.pid, resource.RLIMIT_NOFILE)
        lowest_free = min(set(range(len(used) + 1)) - used)
        resource.prlimit(status.pid, resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
        with ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(connect(one.server.place, BARE))
            eventually(lambda: one.events("exhausted"), "it has no descriptors")
            lasts(one, 1.5)
        resource.prlimit(status.pid, resource.RLIMIT_NOFILE, limits)
        one.serves()


@pytest.mark.slow
def test_worker_under_a_flood_proves_that_it_serves(tmp_path: Path) -> None:
    with breakable(tmp_path, "pass", server="stall_timeout = 1.0") as one:
        ended = threading.Event()

        def flood() -> None:
            while not ended.is_set():
                for client in [connect(one.server.place, REQUEST) for _ in range(50)]:
                    rest(client)

        threads = [threading.Thread(target=flood) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            lasts(one, 3)
        finally:
            ended.set()
            for thread in threads:
                thread.join()


@pytest.mark.slow
def test_stall_timeout_0_kills_no_worker_without_a_proof(tmp_path: Path) -> None:
    with breakable(tmp_path, breaking("sessions", STOPPED), server="stall_timeout = 0") as one:
        one.break_it()
        eventually(lambda: one.server.get("/-/ready").status == 503, "it is seen, and that is all")
        lasts(one, 1.0)
        assert ask(one.server.place) == REPLY


def lasts(one: Breakable, seconds: float) -> None:
    """The worker is not replaced: only the time can be waited for."""
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= end or not one.worker.alive)
    assert one.worker.alive
    assert one.events("stalled") == one.events("process-ended") == []


# ----------------------------------------------------------------------------------------------------------- exceptions


FAILING_ONCE = """
import flashpol.hub as hub
real = hub.Guarded
def guarded(callback, on_error):
    calls = iter([1])
    def fails_once():
        if next(calls, None):
            raise ValueError("once")
        callback()
    return real(fails_once, on_error)
hub.Guarded = guarded
"""


@pytest.mark.slow
def test_server_serves_after_each_callback_has_raised_once() -> None:
    with application() as behind:
        arguments = ("--allow", "*:*", "--upstream", str(behind.remote))
        with Flashpol(*arguments, prelude=FAILING_ONCE) as server:
            client = connect(server.place)
            deliver(client, BARE[:9])
            client.sendall(REQUEST[9:])
            assert rest(client).startswith(b"<?xml")
            with connect(server.place, b"hello") as client, behind.accept() as session:
                assert receive(session, 5) == b"hello"
                client.sendall(b"again")
                assert receive(session, 5) == b"again"
            for what in ("messages of the arbiter", "clients of listener", "waiting clients", "sessions"):
                server.logs(f"a callback ({what}")
            server.counts(0, "worker_restarts_total")


# --------------------------------------------------------------------------------------------------------------- memory


RAISED: dict[str, str] = {
    "callback": "fail()",
    "greenlet": "hub.start_greenlet(fail)",
}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["callback", "greenlet"])
def test_memory_error_in_the_hub_ends_the_worker_with_its_own_status(tmp_path: Path, where: str) -> None:
    with breakable(tmp_path, RAISED[where]) as one, ExitStack() as stack:
        for place in one.server.places:
            stack.enter_context(connect(place))
        eventually(lambda: one.server.metrics().total("connections_open") == 2, "two silent clients")
        one.break_it()
        one.is_replaced()
        [line] = one.events("out-of-memory")
        assert (line["process"], line["pid"]) == ("worker-0", one.worker.pid)
        [line] = one.events("process-ended")
        assert line["status"] == OUT_OF_MEMORY
        assert one.events("stalled") == []
        one.serves()
        settled(one.server)
        one.server.counts(2, "refused_total", reason="crashed")


def settled(server: Flashpol) -> None:
    """Every connection has ended and was counted once."""
    gauges = ("connections_open", "parked_connections", "slow_replies", "sessions")
    eventually(lambda: not any(server.metrics().total(name) for name in gauges), "nothing is open")
    metrics = server.metrics()
    ends = ("replies_total", "relayed_total", "refused_total", "timeouts_total", "resets_total")
    assert metrics.total("connections_accepted_total") == sum(metrics.total(name) for name in ends)


@pytest.mark.slow
@pytest.mark.parametrize("spare", [0, 1, 4])
def test_worker_whose_memory_a_flood_uses_up_recovers(tmp_path: Path, spare: int) -> None:
    """The limit is lowered after the start, to `spare` MB above need. A session that finds no memory is refused; what
    finds none elsewhere ends the worker."""
    server = f"stall_timeout = {STALL}\nmax_address_connections = 0"
    with breakable(tmp_path, "pass", server=server) as one:
        limit_memory(one.worker, spare << 20)
        clients = []
        for _ in range(1500):
            client = connect(one.server.places[1])
            with suppress(ConnectionError):  # refused
                client.sendall(b"x" * 4000)
            clients.append(client)
        eventually(lambda: not one.worker.alive or one.events("refusing"), "it refuses clients, or it ends")
        for client in clients:
            reset(client)
        eventually(lambda: one.server.get("/-/ready").status == 200, "the server is ready")
        settled(one.server)
        assert drained(one.application)
        one.serves()
        settled(one.server)
        assert {line["status"] for line in one.events("process-ended")} <= {OUT_OF_MEMORY, -signal.SIGABRT}


def limit_memory(process: Process, spare: int) -> None:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + spare
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def drained(behind: Application) -> bool:
    behind.listening.setblocking(False)
    try:
        while True:
            behind.listening.accept()[0].close()
    except BlockingIOError:
        return True
    finally:
        behind.listening.settimeout(DEADLINE)
