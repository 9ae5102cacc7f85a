"""Sockets from systemd: passed by its own tool, and by a parent that keeps them over restarts."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from flashpol.supervisor.systemd import listen_fds
from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, ROOT, Flashpol, Place, command, free_port, one_line

REPLY = POLICY.read_bytes() + b"\0"
ACTIVATE = shutil.which("systemd-socket-activate")

# What systemd does between fork and exec. A listening socket is number 3 then.
PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="flash")
os.execvp(sys.argv[2], sys.argv[2:])
"""

needs_systemd = pytest.mark.skipif(not ACTIVATE, reason="no systemd-socket-activate: apt-get install systemd")


def activated(*places: Place, names: str) -> list[str]:
    """The command that listens there and becomes what follows it, when the first client comes."""
    listen = [text for place in places for text in ("-l", "{}:{}".format(*place))]
    # It passes only the variables that it is given: those of a sanitizer would be lost.
    environ = [f"--setenv={name}" for name in os.environ]
    return [str(ACTIVATE), *listen, f"--fdname={names}", *environ]


@contextmanager
def knocking(place: Place) -> Iterator[Callable[[], bytes]]:
    """A client that is there first. What it was answered."""

    def knock() -> bytes:
        with suppress(ConnectionRefusedError):
            return ask(place)
        return b""

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(eventually, knock, "an answer")
        yield lambda: answer.result(DEADLINE)


# ----------------------------------------------------------------------------------------------------- the variables


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "one", "LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "0", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "flash"},
    ],
)
def test_listen_fds_for_another_process_are_not_taken(given: dict[str, str]) -> None:
    environ = {"HOME": "/", **given}
    assert listen_fds(environ) == {}
    assert environ == {"HOME": "/"}, "variables for one process are not inherited"


# ---------------------------------------------------------------------------------------------------- systemd's tool


@needs_systemd
def test_first_client_starts_the_server_and_gets_its_reply() -> None:
    flash, admin = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    under = activated(flash, admin, names="flash:admin")
    with (
        knocking(flash) as answer,
        Flashpol(
            "--policy", POLICY, listen=("systemd:flash",), admin="systemd:admin", workers=2, under=under
        ) as server,
    ):
        assert answer() == REPLY
        assert (server.place, server.admin_place) == (flash, admin)
        assert {ask(flash) for _ in range(20)} == {REPLY}
        metrics = server.metrics()
        server.counts(21, "replies_total", listener="{}:{}".format(*flash))
        assert metrics.total("accept_queue_limit") > 0
        assert server.stop() == 0


@needs_systemd
def test_name_with_several_sockets_serves_them_all() -> None:
    places = [("127.0.0.1", free_port()), ("127.0.0.1", free_port())]
    with (
        knocking(places[0]),
        Flashpol("--policy", POLICY, listen=("systemd:flash",), under=activated(*places, names="flash:flash")),
    ):
        assert [ask(place) for place in places] == [REPLY, REPLY]


# -------------------------------------------------------------------------------------------------- a parent that stays


def passing(sock: socket.socket) -> list[str]:
    return [sys.executable, "-c", PASS_SOCKET, str(sock.fileno())]


def successor(sock: socket.socket) -> Flashpol:
    return Flashpol("--policy", POLICY, listen=("systemd:flash",), under=passing(sock), pass_fds=[sock.fileno()])


def refused(sock: socket.socket, name: str = "flash") -> str:
    """The one line with which the server ends."""
    serve = command("serve", "--policy", POLICY, "--admin", "off", "--listen", f"systemd:{name}")
    done = subprocess.run(
        [*passing(sock), *serve],
        cwd=ROOT, pass_fds=[sock.fileno()], capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    return one_line(done)


def test_serve_with_an_unknown_systemd_name_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert refused(sock, "other") == (
            "systemd:other: systemd passed systemd:flash; see FileDescriptorName= in the .socket unit"
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_serve_with_a_socket_that_does_not_listen_is_refused(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as sock:
        assert refused(sock) == (
            "systemd:flash: systemd passed a descriptor that is not a listening TCP socket; use ListenStream=IP:PORT"
        )


@pytest.mark.slow
def test_restart_with_a_kept_socket_loses_no_client() -> None:
    """As systemd does it: the next one starts when the last one has ended, and the socket is there all the time."""
    answers: list[bytes | OSError] = []
    enough = threading.Event()

    def client(place: Place) -> None:
        while not enough.is_set():
            try:
                answers.append(ask(place))
            except OSError as error:
                answers.append(error)

    with socket.create_server(("127.0.0.1", 0), backlog=1024) as sock, ThreadPoolExecutor(8) as pool:
        place = sock.getsockname()
        clients = [pool.submit(client, place) for _ in range(8)]
        try:
            for _ in range(3):
                before = len(answers)
                with successor(sock) as server:
                    eventually(lambda before=before: len(answers) > before + 100, "answers")  # type: ignore[misc]
                    assert server.stop() == 0
            with successor(sock):
                enough.set()
                for each in clients:
                    each.result(DEADLINE)
        finally:
            enough.set()
    assert set(answers) == {REPLY}
