"""Failures that the arbiter must survive: of forks, of children, of rights; and memory that workers can write."""

import os
import shutil
import signal
import socket
from pathlib import Path

import pytest

from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, free_port

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def serve(*arguments: str | Path, **options: object) -> Flashpol:
    return Flashpol("--allow", "*:1935", *arguments, **options)  # type: ignore[arg-type]


FORK_FAILS = """
import errno, os
real, count = os.fork, 0
def fork():
    global count
    count += 1
    if count in (3, 4):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real()
os.fork = fork
"""


def test_fork_that_fails_is_tried_again() -> None:
    with serve(workers=1, prelude=FORK_FAILS) as server:  # the worker and admin are forks 1 and 2
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.workers not in ([], [worker]), "the next worker")
        assert server.log.count("cannot start worker 0: Resource temporarily unavailable; trying again") == 2
        assert server.stop() == 0


@as_root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_arbiter_without_cap_kill_ends_its_children(number: int) -> None:
    prelude = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(24, 5, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_KILL: takes effect at exec
import os, sys
if "again" not in os.environ:
    os.environ["again"] = "1"
    os.execv(sys.executable, sys.orig_argv)
"""
    with serve("--user", "nobody", prelude=prelude) as server:
        children = server.children
        assert len(children) == 2
        assert server.stop(number) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        eventually(lambda: not any(child.alive for child in children), "the end of all")
        assert "Traceback" not in server.log


def test_workers_that_never_come_up_end_the_server() -> None:
    prelude = """
import flashpol.worker.worker as worker
def run(*arguments):
    raise RuntimeError("never")
worker.run = run
"""
    with (
        pytest.raises(
            AssertionError, match=r"(?s)ended with 1: .*giving up: workers exited 5 times before becoming ready"
        ),
        serve(prelude=prelude) as server,
    ):
        raise RuntimeError(f"it is ready: {server.out}")


def test_listeners_beyond_the_soft_limit_of_descriptors_are_served() -> None:
    prelude = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
"""
    with serve(workers=7, listen=("127.0.0.1:0",) * 10, prelude=prelude, admin="off") as server:  # 70 sockets
        assert ask(server.place)[-1:] == b"\0"


def test_counters_add_up_after_a_worker_died_with_open_connections() -> None:
    with serve() as server:
        assert ask(server.place)[-1:] == b"\0"
        silent = [socket.create_connection(server.place) for _ in range(7)]
        eventually(lambda: server.metrics().total("connections_open") == 7, "the silent ones")
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.metrics().total("connections_open") == 0, "the account")
        metrics = server.metrics()
        server.counts(7, "refused_total", reason="crashed")
        ends = ("replies_total", "refused_total", "timeouts_total", "resets_total")
        assert metrics.total("connections_accepted_total") == 8 == sum(metrics.total(name) for name in ends)
        for client in silent:
            client.close()


TAKEN_AWAY = """
import os, socket
import flashpol.worker.worker as worker
real = worker.run
def run(slot, sockets, plan, shared, stop):
    if os.path.exists("GO"):
        os.unlink("GO")
        somebody = socket.create_server(("127.0.0.1", 0))
        for [sock] in sockets:
            sock.shutdown(socket.SHUT_RDWR)
            sock.setblocking(True)
            sock.connect(somebody.getsockname())
        os._exit(3)
    real(slot, sockets, plan, shared, stop)
worker.run = run
"""


def test_worker_that_shuts_its_listen_socket_down_harms_no_other(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with serve(workers=2, prelude=TAKEN_AWAY.replace("GO", str(go))) as server:
        go.touch()
        server.workers[0].kill()
        eventually(lambda: "exited with 3" in server.log, "what it does with its socket")
        eventually(lambda: server.up == 2, "its successor")
        assert ask(server.place)[-1:] == b"\0", "by the other worker"
        assert server.stop() == 0


def test_arbiter_that_crashes_logs_it_and_exits_with_1(tmp_path: Path) -> None:
    go = tmp_path / "go"
    prelude = f"""
import errno, os
import flashpol.supervisor.generation as generation
real = generation.Generation.update_failover
def update_failover(self):
    if os.path.exists({str(go)!r}):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    real(self)
generation.Generation.update_failover = update_failover
"""
    with serve(prelude=prelude) as server:
        children = server.children
        go.touch()
        assert server.process.wait(DEADLINE) == 1, "2 is for a mistake in the configuration"
        server.logs("ERROR: the arbiter crashed; workers are draining and will exit")
        eventually(lambda: not any(child.alive for child in children), "the end of all")


NO_ADMIN = """
import pathlib
import flashpol.admin.endpoint as endpoint
import flashpol.supervisor.generation as generation
generation.ADMIN_LAST_DELAY = 0.5
real = endpoint.run
def run(*arguments):
    if not pathlib.Path(GO).exists():
        raise PermissionError("no metrics today")
    real(*arguments)
endpoint.run = run
"""


def test_admin_process_that_cannot_start_does_not_keep_policies_from_being_served(tmp_path: Path) -> None:
    go = tmp_path / "go"
    admin = f"127.0.0.1:{free_port()}"
    with serve(prelude=NO_ADMIN.replace("GO", repr(str(go))), admin=admin) as server:  # it is ready
        assert server.url is None, "the ready line promises no metrics"
        assert ask(server.place)[-1:] == b"\0"
        server.logs("metrics are unavailable: the admin process failed to start 5 times")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "a reload")
        assert ask(server.place)[-1:] == b"\0"
        eventually(lambda: server.log.count("metrics are unavailable") == 2, "the new generation's line")
        go.touch()
        eventually(lambda: "metrics are available again" in server.log, "the admin process")
        server.url = f"http://{admin}/metrics"
        server.counts(2, "replies_total")
        assert server.stop() == 0


def test_admin_process_that_may_not_lower_its_priority_serves() -> None:
    prelude = """
import os
def nice(_):
    raise PermissionError(1, "Operation not permitted")
os.nice = nice
"""
    with serve(prelude=prelude) as server:
        assert server.get("/-/ready").status == 200
        assert "admin failed" not in server.log
