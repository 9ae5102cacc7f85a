"""The connections of a batch, which are looked at together and closed together, and replies that are watched."""

import platform
import socket
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from testkit.clients import REQUEST, deliver, reset, until_end
from testkit.fastpath_loop import Loop
from testkit.serving import REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

Start = Callable[..., Loop]
WATCHED_OF = 128  # CHECK_EVERY
BATCH = 32
PATIENT = {"request_timeout": 60, "linger_timeout": 60}


def waiting(loop: Loop, requests: list[bytes]) -> list[socket.socket]:
    """Clients in the accept queue, and what each has sent."""
    clients = [socket.create_connection(loop.address) for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        if request:
            deliver(client, request)
    return clients


def replied(loop: Loop, count: int, source: str = "") -> list[socket.socket]:
    """Clients whose replies are sent and not read."""
    clients = [loop.connect(source=source) for _ in range(count)]
    for client in clients:
        loop.send(client, REQUEST)
    return clients


@pytest.mark.parametrize("silent", [(0,), (BATCH - 1,), (3, 4, 9), tuple(range(1, BATCH, 2))], ids=str)
def test_batch_with_clients_that_wait_closes_the_others_alone(start: Start, silent: tuple[int, ...]) -> None:
    loop = start(**PATIENT)
    clients = waiting(loop, [b"" if number in silent else REQUEST for number in range(BATCH)])
    assert loop.acceptor.ready() == BATCH
    for number, client in enumerate(clients):
        if number not in silent:
            assert until_end(client) == (REPLY, "fin")
    assert loop.connection_table.open == len(silent)
    for number in silent:
        loop.send(clients[number], REQUEST)
        assert until_end(clients[number]) == (REPLY, "fin")
    assert loop.settle() == {"reply": BATCH}
    for client in clients:
        client.close()


def test_batch_with_clients_that_have_closed_or_reset_counts_replies(start: Start) -> None:
    loop = start(**PATIENT)
    clients = waiting(loop, [REQUEST] * BATCH)
    clients[5].shutdown(socket.SHUT_WR)
    clients[6].close()
    reset(clients[7])
    assert loop.acceptor.ready() == BATCH
    assert loop.settle() == {"reply": BATCH - 1, "reset": 1}
    for number, client in enumerate(clients):
        if number not in (6, 7):
            assert until_end(client) == (REPLY, "fin")
        client.close()


def test_batch_with_more_input_closes_none_of_it_with_reset(start: Start) -> None:
    loop = start(**PATIENT)
    clients = waiting(loop, [REQUEST + b"x" * (number % 3) for number in range(BATCH)])
    assert loop.acceptor.ready() == BATCH
    for client in clients:
        assert until_end(client) == (REPLY, "fin")
        client.close()
    assert loop.settle() == {"reply": BATCH}


def test_watched_reply_whose_client_closes_ends(start: Start) -> None:
    loop = start(**PATIENT)
    for client in replied(loop, WATCHED_OF):
        client.close()
    assert loop.settle() == {"reply": WATCHED_OF}


def test_watched_reply_whose_client_resets_ends_and_marks_no_address(start: Start) -> None:
    """After RST the kernel still counts bytes that were not acknowledged. None of them is on its way."""
    found = SharedAddressLimits(1, ConnectionLimits(max_address_connections=0)).of(0)
    loop = start(**(PATIENT | {"address_limits": found, "linger_timeout": 0.05}))
    for count in (20, 12):
        clients = replied(loop, count, source="127.0.0.2")
        assert 1 <= loop.connection_table.open <= 3  # of an address that did not acknowledge all are kept
        for client in clients:
            reset(client)
        loop.settle()


# A filter of system calls as a container may have it: close_range fails with EPERM.
FILTERED = """
import ctypes, struct, os, sys
libc = ctypes.CDLL(None, use_errno=True)
LOAD, EQUAL, RETURN, ERRNO, ALLOW, CLOSE_RANGE, EPERM = 0x20, 0x15, 0x06, 0x00050000, 0x7FFF0000, 436, 1
rows = [(LOAD, 0, 0, 0), (EQUAL, 0, 1, CLOSE_RANGE), (RETURN, 0, 0, ERRNO | EPERM), (RETURN, 0, 0, ALLOW)]
program = b"".join(struct.pack("HBBI", *row) for row in rows)
memory = ctypes.create_string_buffer(program)
head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rows), ctypes.addressof(memory)))
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, head, 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
assert libc.syscall(CLOSE_RANGE, 1 << 20, 1 << 20, 0) == -1 and ctypes.get_errno() == EPERM

from testkit.clients import REQUEST, until_end
from testkit.fastpath_loop import Loop
from testkit.serving import REPLY
import socket
from testkit.clients import deliver
loop = Loop()
before = len(os.listdir("/proc/self/fd"))
for _ in range(2):
    clients = [socket.create_connection(loop.address) for _ in range(40)]
    for client in clients:
        deliver(client, REQUEST)
    assert loop.acceptor.ready() == 40
    for client in clients:
        assert until_end(client) == (REPLY, "fin")
        client.close()
    loop.settle()
    assert len(os.listdir("/proc/self/fd")) == before
loop.close()
"""


@pytest.mark.skipif(struct.calcsize("P") != 8 or platform.system() != "Linux", reason="the filter is for 64 bits")
def test_batch_where_close_range_is_forbidden_closes_all(start: Start) -> None:
    subprocess.run([sys.executable, "-c", FILTERED], check=True, timeout=60)
