"""A program with few descriptors that embeds a PolicyServer. Each line on standard input gets a line of JSON."""

import json
import os
import resource
import socket
import sys
import time
from contextlib import suppress

import gevent
import gevent.os
from gevent.hub import get_hub

from flashpol import PolicyServer
from flashpol._fastpath import REASONS
from flashpol.config import ConnectionTimeouts

SPARE = 10  # connections that fit
POLICY = b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'


def errors_of_the_hub() -> list[str]:
    """gevent prints what a callback raises, and goes on; here the errors are collected."""
    seen: list[str] = []
    get_hub().handle_error = lambda context, kind, value, tb: seen.append(f"{kind.__name__}: {value}")
    return seen


def untouched_listeners() -> list[bool]:
    """New listeners get the numbers of closed descriptors. Whether each still has its client after three pauses."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    clients = []
    for listener in listeners:
        listener.setblocking(False)
        clients.append(socket.create_connection(listener.getsockname()))
    gevent.sleep(0.15)
    found = []
    for listener in listeners:
        try:
            listener.accept()[0].close()
            found.append(True)
        except BlockingIOError:
            found.append(False)
    for sock in (*listeners, *clients):
        sock.close()
    return found


def main() -> None:
    """With an argument the policy has so many bytes more."""
    failed = errors_of_the_hub()
    policy = POLICY + b" " * int(*sys.argv[1:])
    server = PolicyServer(
        "127.0.0.1:0", policy=policy, timeouts=ConnectionTimeouts(request_timeout=60, reply_timeout=60)
    )
    server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # else the kernel may take all of a reply
    server.start()
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    for fd in range(3, highest):
        with suppress(OSError):  # fill the gaps, so that the limit below leaves exactly SPARE
            if not os.path.exists(f"/proc/self/fd/{fd}"):
                os.dup2(0, fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + SPARE, highest + SPARE))
    gevent.os.make_nonblocking(0)
    pending = b""
    while chunk := gevent.os.nb_read(0, 100):
        pending += chunk
        while b"\n" in pending:
            command, pending = pending.split(b"\n", 1)
            result: object = None
            if command == b"status":
                names = ("accepted", "open", "accept_errors", "timeouts")
                result = {name: server.counters[name] for name in names}
                result |= {"replies": server.counters.replies, "cpu": time.process_time(), "failed": failed}
                result |= {"port": server.address.port}
                result |= {"capacity": server.counters.all("refused")[REASONS.index("capacity")]}
            elif command == b"finish":
                result = server.stop(5)
            elif command == b"stop":
                server.stop(0)
                result = untouched_listeners()
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


main()
