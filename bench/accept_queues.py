"""An experiment: who wakes up for a connection, if processes share one listen socket? `python -m bench.accept_queues`

Single connections arrive while all processes sleep in epoll_wait. A process may be woken and sleep again without a
return from epoll_wait, if another one has accepted the connection meanwhile; that costs its CPU time too, so wake-ups
are counted as the kernel counts them, in voluntary context switches. Compared are

    alone               the process sleeps in the very epoll set that has the socket, as gevent's loop does: flashpol's
                        workers do so under systemd
    alone, exclusive    the same, with EPOLLEXCLUSIVE for the socket, which gevent's loop cannot do
    nested              the socket is in an epoll set, which is in the set that the process sleeps in: the only way to
                        add a socket to gevent's loop with flags of one's own
    nested, exclusive   the same, with EPOLLEXCLUSIVE for the socket
    own sockets         each process has a socket of its own on the address (SO_REUSEPORT), as flashpol's workers do

docs/architecture.md, "Accept queues", has the figures and what follows from them.
"""

import argparse
import mmap
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from typing import NamedTuple

WAYS = ("alone", "alone, exclusive", "nested", "nested, exclusive", "own sockets")
PAUSE = 0.02  # seconds between connections, in which all processes fall asleep again
_COUNTS = struct.Struct("=QQ")  # of each process: returns from epoll_wait, connections


class Result(NamedTuple):
    way: str
    wake_ups: float  # per connection, of all processes together: voluntary context switches
    returns: float  # the same of returns from epoll_wait
    accepted: tuple[int, ...]  # connections of each process


def _watch(sock: socket.socket, way: str) -> tuple[select.epoll, select.epoll | None]:
    """The set to sleep in, and the inner one, if it is nested."""
    inner = select.epoll()
    inner.register(sock, select.EPOLLIN | (select.EPOLLEXCLUSIVE if "exclusive" in way else 0))
    if not way.startswith("nested"):
        return inner, None
    outer = select.epoll()
    outer.register(inner, select.EPOLLIN)
    return outer, inner


def _serve(sock: socket.socket, way: str, count: Callable[[int, int], None]) -> None:
    """Accept until killed."""
    outer, inner = _watch(sock, way)
    returns = accepted = 0
    while True:
        outer.poll()
        returns += 1
        if inner is None or inner.poll(0):
            try:
                while True:
                    sock.accept()[0].close()
                    accepted += 1
            except BlockingIOError:
                pass
        count(returns, accepted)


def _listen(processes: int, way: str) -> list[socket.socket]:
    """A socket for each process, non-blocking; the same one, unless each has its own."""
    first = socket.socket()
    if way == "own sockets":
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    first.bind(("127.0.0.1", 0))
    sockets = [first]
    while way == "own sockets" and len(sockets) < processes:
        sockets.append(socket.socket())
        sockets[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sockets[-1].bind(first.getsockname())
    for sock in sockets:
        sock.setblocking(False)
        sock.listen()
    return sockets * (processes // len(sockets))


def _switches(pid: int) -> int:
    """How often a process has gone to sleep."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))


def measure(way: str, processes: int, connections: int) -> Result:
    """Fork the processes, connect, count, and kill them."""
    shared = mmap.mmap(-1, processes * _COUNTS.size)
    sockets = _listen(processes, way)
    pids = []
    try:
        for number, sock in enumerate(sockets):
            pid = os.fork()
            if pid == 0:
                try:
                    offset = number * _COUNTS.size
                    _serve(sock, way, lambda *counts: _COUNTS.pack_into(shared, offset, *counts))  # noqa: B023
                finally:
                    os._exit(1)
            pids.append(pid)
        time.sleep(10 * PAUSE)  # until all sleep
        before = sum(map(_switches, pids))
        for _ in range(connections):
            time.sleep(PAUSE)
            with socket.create_connection(sockets[0].getsockname()) as client:
                client.recv(1)  # until it was accepted and closed
        time.sleep(PAUSE)
        wake_ups = sum(map(_switches, pids)) - before
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for sock in set(sockets):
            sock.close()
    counts = [_COUNTS.unpack_from(shared, number * _COUNTS.size) for number in range(processes)]
    returns = sum(number for number, _ in counts)
    return Result(way, wake_ups / connections, returns / connections, tuple(own for _, own in counts))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.accept_queues", description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    options = parser.parse_args()
    print(f"Linux {os.uname().release}, {len(os.sched_getaffinity(0))} CPUs, {options.connections} connections;")
    print("wake-ups and returns from epoll_wait of all processes for each connection")
    print(f"{'socket':20}{'processes':>10}{'wake-ups':>10}{'returns':>9}   connections of each process")
    for processes in options.processes:
        for way in WAYS:
            result = measure(way, processes, options.connections)
            figures = f"{processes:>10}{result.wake_ups:>10.2f}{result.returns:>9.2f}"
            print(f"{way:20}{figures}   {' '.join(map(str, result.accepted))}")


if __name__ == "__main__":
    main()
