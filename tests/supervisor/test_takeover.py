"""A worker that is taken over: what it can write and hold up, and what it leaves behind when it ends.

The worker plays the attacker itself: a prelude runs in it, which does what foreign code in it could do.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from flashpol.config import ConnectionLimits
from flashpol.counters.mapping import PAGE
from flashpol.counters.shared import SharedCounters
from testkit.clients import ask, connect
from testkit.polling import eventually
from testkit.processes import Flashpol, as_nobody, free_port

POLICY = ("--allow", "*:1935")

# Calls `attack(slot, sockets, plan, shared, control)` in each worker, in a greenlet, once the file GO exists, and
# `leave()` when the worker has drained.
PRELUDE = """
import os, pathlib, random
import gevent
import flashpol.worker.worker as worker
go, real = pathlib.Path({go!r}), worker.run
def leave():
    pass
{attack}
def watch(*arguments):
    while not go.exists():
        gevent.sleep(0.01)
    attack(*arguments)
def run(*arguments):
    gevent.spawn(watch, *arguments)
    real(*arguments)
    leave()
worker.run = run
"""


class Attack:
    """A prelude whose attack begins with `begin`."""

    def __init__(self, folder: Path, attack: str) -> None:
        self._go = folder / "go"
        self.prelude = PRELUDE.format(go=str(self._go), attack=attack)

    def begin(self) -> None:
        self._go.touch()

    def end(self) -> None:
        """Workers that start later behave."""
        self._go.unlink()


# ------------------------------------------------------------------------------------------------------ shared memory

FORGED_PID = """
def attack(slot, sockets, plan, shared, control):
    shared.process(slot).pid = BYSTANDER
"""


def test_worker_that_forges_its_pid_is_replaced_and_no_other_process_killed(tmp_path: Path) -> None:
    bystander = os.fork()
    if bystander == 0:
        signal.pause()
        os._exit(1)
    try:
        attack = Attack(tmp_path, FORGED_PID.replace("BYSTANDER", str(bystander)))
        with Flashpol(*POLICY, prelude=attack.prelude) as server:
            workers = server.workers
            attack.begin()
            eventually(lambda: "was killed by SIGSEGV" in server.log, "the end of the forger")
            attack.end()
            eventually(lambda: server.workers not in ([], workers), "the next worker")
            assert ask(server.place)[-1:] == b"\0"
            assert server.stop() == 0
        assert os.waitpid(bystander, os.WNOHANG) == (0, 0)
    finally:
        os.kill(bystander, signal.SIGKILL)
        os.waitpid(bystander, 0)


def writable(pid: int) -> int:
    """Bytes of the server's shared memory that a process may write."""
    found = 0
    with suppress(FileNotFoundError, ProcessLookupError):
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, permissions, *_ = line.split()
            if permissions[1] == "w" and "memfd:flashpol" in line:
                start, _, end = span.partition("-")
                found += int(end, 16) - int(start, 16)
    return found


def test_worker_and_admin_may_write_their_own_pages_only_also_after_a_reload(tmp_path: Path) -> None:
    with Flashpol(*POLICY, workers=3) as server:
        # A worker: its counters, its address table. The admin process: its report, the requests to reload.
        own = SharedCounters(3, 1, connection_limits=ConnectionLimits()).written_by(1)
        expected = [sum(each.end - each.start for each in own)] * 3 + [2 * PAGE]
        for _ in range(2):
            # A child of the generation before may be about to end.
            eventually(
                lambda: [writable(each.pid) for each in (*server.workers, server.admin) if each] == expected,
                "their own pages only",
            )
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: " reloaded: " in server.log and len(server.children) == 4, "the next generation")


GARBAGE = """
def attack(slot, sockets, plan, shared, control):
    parts = shared.written_by(slot)
    kinds = [
        lambda size: os.urandom(size),
        lambda size: b"\\xff" * size,
        lambda size: (b"\\xff" * 7 + b"\\x7f") * (size // 8),
        lambda size: bytes(size),
        lambda size: b"".join(random.choice((bytes(8), os.urandom(8))) for _ in range(size // 8)),
    ]
    while True:
        for mapping, start, end in parts:
            mapping.memory[start:end] = random.choice(kinds)(end - start)
        pathlib.Path(str(go) + str(slot)).touch()
        gevent.sleep(0.003)
"""


@pytest.mark.slow
def test_worker_that_fills_its_memory_with_garbage_disturbs_neither_admin_nor_arbiter(tmp_path: Path) -> None:
    config = tmp_path / "flashpol.toml"
    config.write_text(
        "[server]\nmax_connections = 5000\nmax_address_connections = 500\nmax_address_rate = 500\n"
        "reload_endpoint = true\ndrain_timeout = 1\nshutdown_timeout = 1\n"
        '[policies.p]\ngrants = [{domain = "*", ports = "1935"}]\n'
        '[[listeners]]\npolicy = "p"\nname = "one"\naddress = "127.0.0.1:0"\n'
        '[[listeners]]\npolicy = "p"\nname = "two"\naddress = "127.0.0.1:0"\nupstream = ["127.0.0.1:9"]\n'
    )
    attack = Attack(tmp_path, GARBAGE)
    with Flashpol("-c", config, listen=(), workers=2, prelude=attack.prelude) as server:
        attack.begin()
        eventually(lambda: (tmp_path / "go0").exists() and (tmp_path / "go1").exists(), "garbage in both")
        for number in range(1, 31):
            for path in ("/", "/-/live", "/-/status", "/metrics"):
                reply = server.get(path)
                assert reply.status == 200, reply.body
            assert server.get("/-/ready").status in (200, 503)
            json.loads(server.get("/-/status").body)
            if number % 8 == 0 and (workers := server.workers):
                workers[0].kill()
            if number % 12 == 0:
                assert server.get("/-/reload", "POST").status in (200, 202, 500)
        attack.end()
        reloaded = server.log.count(" reloaded: ")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count(" reloaded: ") > reloaded, "a reload")
        assert ask(server.place)[-1:] == b"\0"
        assert server.stop() == 0
        assert "Traceback" not in server.log


# ------------------------------------------------------------------------------------------------------------ deadlines

# It reads no message, beats on, and does not say that it has stopped accepting.
DEAF = """
def attack(slot, sockets, plan, shared, control):
    if slot == 0:
        control.accepting.wait()
        control._watcher.close()
        (go.parent / f"deaf{os.getpid()}").touch()
"""
PATIENT_DRAIN = """
[server]
shutdown_timeout = 0.5
drain_timeout = 300
[policies.p]
grants = [{{domain = "*", ports = "1935"}}]
[[listeners]]
policy = "p"
address = "127.0.0.1:{port}"
"""


@pytest.mark.slow
def test_worker_that_ignores_the_arbiter_holds_up_no_reload_and_cuts_no_session_of_others(tmp_path: Path) -> None:
    config = tmp_path / "flashpol.toml"
    attack = Attack(tmp_path, DEAF)
    attack.begin()
    with socket.create_server(("127.0.0.1", 0)) as application:
        upstream = f'upstream = ["127.0.0.1:{application.getsockname()[1]}"]\n'
        config.write_text(PATIENT_DRAIN.format(port=free_port()) + upstream)
        with Flashpol("-c", config, listen=(), workers=2, prelude=attack.prelude) as server:
            sessions = []
            for _ in range(16):  # some of them in the other worker
                sessions.append(connect(server.place, b"hello"))
                sessions.append(application.accept()[0])
                assert sessions[-1].recv(9) == b"hello"
            for number in (1, 2):  # the second one while the first goes on, as an operator would
                eventually(lambda number=number: len([*tmp_path.glob("deaf*")]) >= number, "a deaf worker")  # type: ignore[misc]
                server.process.send_signal(signal.SIGHUP)
                eventually(lambda number=number: server.log.count(" reloaded: ") == number, "the reload")  # type: ignore[misc]
            assert server.log.count("goes on accepting although it is to drain; killing it") == 2
            assert ask(server.place)[-1:] == b"\0"
            alive = 0
            for client, application_side in zip(sessions[::2], sessions[1::2], strict=True):
                with contextlib.suppress(OSError):
                    client.sendall(b"again")
                    application_side.settimeout(2)
                    alive += application_side.recv(9) == b"again"
            assert alive >= 1, "the sessions of the workers that drain as told go on"
            assert server.stop() == 0
            for sock in sessions:
                sock.close()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")
def test_reloads_go_on_although_the_arbiter_may_not_kill_its_workers(tmp_path: Path) -> None:
    config = tmp_path / "flashpol.toml"
    config.write_text(PATIENT_DRAIN.format(port=free_port()).replace("drain_timeout = 300", "drain_timeout = 0.5"))
    attack = Attack(tmp_path, DEAF)
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents[: tmp_path.parents.index(Path(tempfile.gettempdir()))]:
        folder.chmod(0o755)
    attack.begin()
    with Flashpol(
        "-c",
        config,
        "--user",
        "nobody",
        listen=(),
        prelude=attack.prelude,
        under=("setpriv", "--bounding-set", "-kill"),
    ) as server:
        for number in range(1, 6):  # more than generations may drain
            eventually(lambda number=number: len([*tmp_path.glob("deaf*")]) >= number, "a deaf worker")  # type: ignore[misc]
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda number=number: server.log.count(" reloaded: ") == number, "the reload")  # type: ignore[misc]
        eventually(lambda: "does not end, and there is no right to kill it" in server.log, "the report")
        assert server.get("/-/ready").status == 200


# ------------------------------------------------------------------------------------------------------ listen sockets

# A program that gives all clients of the address to the first socket of its group.
STEER = """
import ctypes, struct
code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
def attack(slot, sockets, plan, shared, control):
    for [sock] in sockets:
        sock.setsockopt(1, 51, struct.pack("HL", 1, ctypes.addressof(code)))  # SO_ATTACH_REUSEPORT_CBPF
    (go.parent / f"done{slot}").touch()
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """One listener whose clients the log assigns to workers."""
    path = tmp_path / "flashpol.toml"
    path.write_text(
        "[server]\naccess_log = 1\nshutdown_timeout = 1\ndrain_timeout = 2\n"
        '[policies.p]\ngrants = [{domain = "*", ports = "1935"}]\n'
        f'[[listeners]]\npolicy = "p"\naddress = "127.0.0.1:{free_port()}"\n'
    )
    return path


def shares(server: Flashpol, clients: int = 40) -> list[int]:
    """How many of the next clients each of two workers serves."""

    def served() -> list[int]:
        lines = [line for line in server.log.splitlines() if "reply after" in line]
        return [sum(f" worker-{slot}[" in line for line in lines) for slot in range(2)]

    before = served()
    for _ in range(clients):
        assert ask(server.place)[-1:] == b"\0"
    eventually(lambda: sum(served()) - sum(before) == clients, "the log of all of them")
    return [now - then for now, then in zip(served(), before, strict=True)]


@pytest.mark.parametrize("how", ["killed", "reload"])
def test_program_by_which_a_worker_takes_all_clients_ends_with_it(tmp_path: Path, config: Path, how: str) -> None:
    attack = Attack(tmp_path, STEER)
    with Flashpol("-c", config, listen=(), workers=2, prelude=attack.prelude) as server:
        assert all(shares(server))
        workers = server.workers
        attack.begin()
        eventually(lambda: (tmp_path / "done0").exists() and (tmp_path / "done1").exists(), "the programs")
        assert 0 in shares(server), "the attack works"
        attack.end()
        if how == "killed":
            workers[1].kill()
            server.replaced(workers[1], 2)
            eventually(lambda: server.up == 2, "it is up")
        else:
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: " reloaded: " in server.log, "the reload")
            eventually(lambda: not any(worker.alive for worker in workers), "the end of the old workers")
        assert all(shares(server))
        assert server.stop() == 0


BEYOND_REPAIR = """
import socket
def attack(slot, sockets, plan, shared, control):
    for [sock] in sockets:
        with socket.create_server(("127.0.0.1", 0)) as other:
            sock.shutdown(socket.SHUT_RDWR)
            sock.setblocking(True)
            sock.connect(other.getsockname())
    os._exit(3)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_listen_socket_that_a_worker_has_made_useless_is_replaced(tmp_path: Path, config: Path, workers: int) -> None:
    attack = Attack(tmp_path, BEYOND_REPAIR)
    with Flashpol("-c", config, listen=(), workers=workers, prelude=attack.prelude) as server:
        attack.begin()
        eventually(lambda: server.log.count("exited with 3") >= workers, "what they do with their sockets")
        attack.end()
        eventually(lambda: server.up == workers, "their successors")
        server.logs("a worker has spoilt a listen socket of 127.0.0.1:")
        if workers == 2:
            eventually(lambda: all(shares(server)), "clients for both")
        else:
            assert ask(server.place)[-1:] == b"\0"
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "a reload")
        assert ask(server.place)[-1:] == b"\0"
        assert server.stop() == 0


# Locks the filter of its socket when it has drained, and the next generation serves that socket.
LOCKED_WHILE_DRAINING = """
import socket
def attack(slot, sockets, plan, shared, control):
    global kept
    kept = socket.socket(fileno=os.dup(sockets[0][0].fileno()))
    (go.parent / "done").touch()
def leave():
    if (go.parent / "done").exists():
        (go.parent / "done").unlink()
        kept.setsockopt(1, 44, 1)  # SO_LOCK_FILTER
"""


def test_listen_socket_that_is_replaced_under_a_new_worker_gets_to_its_successor(tmp_path: Path, config: Path) -> None:
    attack = Attack(tmp_path, LOCKED_WHILE_DRAINING)
    with Flashpol("-c", config, listen=(), prelude=attack.prelude) as server:
        attack.begin()
        eventually((tmp_path / "done").exists, "a copy of the socket")
        attack.end()
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "its packet filter is locked" in server.log, "the replacement")
        eventually(lambda: "was killed by SIGKILL; its successor" in server.log, "the end of the new worker")
        assert ask(server.place)[-1:] == b"\0"
        eventually(lambda: server.up == 1, "its successor")
        assert server.stop() == 0


def options(server: Flashpol) -> tuple[int, ...]:
    """Of the arbiter's listen socket: what connections inherit."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.pidfd_open(server.process.pid)
    try:
        for fd in os.listdir(f"/proc/{server.process.pid}/fd"):
            copy = libc.syscall(438, pid, int(fd), 0)  # pidfd_getfd
            if copy >= 0 and os.readlink(f"/proc/self/fd/{copy}").startswith("socket:"):
                with socket.socket(fileno=copy) as sock:
                    if sock.family == socket.AF_INET and sock.getsockname() == server.place:
                        return tuple(sock.getsockopt(*option) for option in INHERITED)
            elif copy >= 0:
                os.close(copy)
    finally:
        os.close(pid)
    pytest.skip("this container may not take a descriptor of another process")


INHERITED = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)


@pytest.mark.skipif(os.geteuid() != 0, reason="pidfd_getfd needs the right to trace the server")
def test_options_that_workers_set_are_those_of_the_configuration_that_serves(config: Path) -> None:
    text = config.read_text() + 'upstream = ["127.0.0.1:9"]\nkeepalive = SECONDS\n'
    config.write_text(text.replace("SECONDS", "77"))
    with Flashpol("-c", config, listen=()) as server:
        as_started = options(server)
        assert as_started[:3] == (1, 1, 77)
        for keepalive, ends in ((77, " reloaded: "), (0, " reloaded: "), (77, " reloaded: "), (88, "not reloaded")):
            before, [worker] = server.log.count(ends), server.workers
            bad = "[policies.q]\nfile = 'missing.xml'\n" if ends == "not reloaded" else ""
            config.write_text(bad + text.replace("SECONDS", str(keepalive)))
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda ends=ends, before=before: server.log.count(ends) > before, "the reload")  # type: ignore[misc]
            if not bad:
                eventually(lambda worker=worker: not worker.alive, "the end of the old worker")  # type: ignore[misc]
            wanted = 0 if keepalive == 0 else 1
            eventually(lambda wanted=wanted: options(server)[:2] == (wanted, 1), "the options")  # type: ignore[misc]
            if wanted:
                assert options(server) == as_started
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.workers not in ([], [worker]) and server.up == 1, "the successor")
        assert options(server) == as_started


# ---------------------------------------------------------------------------------------------------- other processes


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"


def steal_descriptor(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(438, os.pidfd_open(pid), 0, 0) < 0:  # pidfd_getfd
        raise OSError(ctypes.get_errno(), "pidfd_getfd")


def read_memory(pid: int) -> None:
    with open(f"/proc/{pid}/mem", "rb"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_worker_of_another_user_reaches_neither_the_arbiter_nor_the_memory_of_siblings() -> None:
    with Flashpol(*POLICY, "--user", "nobody", workers=2) as server:
        arbiter, sibling = server.process.pid, server.workers[0].pid
        for pid in (arbiter, sibling):
            for action in (read_memory, steal_descriptor):
                assert as_nobody(lambda action=action, pid=pid: attempt(lambda: action(pid))) == "PermissionError"  # type: ignore[misc]
        assert as_nobody(lambda: attempt(lambda: os.kill(arbiter, 0))) == "PermissionError"
        # They have one user, so it can signal them: docs/security.md says so.
        assert as_nobody(lambda: attempt(lambda: os.kill(sibling, 0))) == "done"
