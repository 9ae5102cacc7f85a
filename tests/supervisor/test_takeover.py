"""A worker that is taken over: what it can write and hold up, and what it leaves behind when it ends.

The worker plays the attacker itself: a prelude runs in it, which does what foreign code in it could do.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from flashpol._fastpath import ADDRESS_TABLE_HEAD, ADDRESS_TABLE_SET
from flashpol.config import ConnectionLimits
from flashpol.counters.mapping import PAGE, whole_pages
from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import Flashpol

POLICY = ("--allow", "*:1935")

# Calls `attack(slot, sockets, plan, shared, control)` in each worker, in a greenlet, while the file GO exists.
PRELUDE = """
import os, pathlib, random
import gevent
import flashpol.worker.worker as worker
go, real = pathlib.Path({go!r}), worker.run
{attack}
def watch(*arguments):
    while not go.exists():
        gevent.sleep(0.01)
    attack(*arguments)
def run(*arguments):
    gevent.spawn(watch, *arguments)
    real(*arguments)
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
    """Bytes of shared memory that a process may write."""
    found = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, permissions, *_ = line.split()
        if permissions[1] == "w" and permissions[3] == "s":
            start, _, end = span.partition("-")
            found += int(end, 16) - int(start, 16)
    return found


def test_worker_and_admin_may_write_their_own_pages_only_also_after_a_reload(tmp_path: Path) -> None:
    with Flashpol(*POLICY, workers=3) as server:
        for _ in range(2):
            # A worker: its counters, its address table. The admin process: its report, the requests to reload.
            limits = ConnectionLimits()
            table = whole_pages(ADDRESS_TABLE_HEAD + limits.address_table_size // 8 * ADDRESS_TABLE_SET)
            assert [writable(worker.pid) for worker in server.workers] == [PAGE + table] * 3
            assert server.admin
            assert writable(server.admin.pid) == 2 * PAGE
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
        deadline = time.monotonic() + 6
        reads = kills = 0
        while time.monotonic() < deadline:
            for path in ("/", "/-/live", "/-/status", "/metrics"):
                reply = server.get(path)
                assert reply.status == 200, reply.body
                reads += 1
            assert server.get("/-/ready").status in (200, 503)
            json.loads(server.get("/-/status").body)
            if reads % 60 == 0 and (workers := server.workers):
                workers[0].kill()
                kills += 1
            if reads % 100 == 0:
                assert server.get("/-/reload", "POST").status in (200, 202, 500)
        attack.end()
        assert reads > 100
        assert kills
        reloaded = server.log.count(" reloaded: ")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count(" reloaded: ") > reloaded, "a reload")
        assert ask(server.place)[-1:] == b"\0"
        assert server.stop() == 0
        assert "Traceback" not in server.log
