"""Mixed traffic for minutes, with constant memory and descriptors and exact counters: ``python -m faults.soak``.

Every connection is of one of `KINDS`, each of which defines how the server must count it and what reply it must get. At
the end the server's counters must be exactly those of this program. Its processes must have as many descriptors as at
the start, and no more memory than after a warm-up.

Exit status: 0 if so, 1 if not, 2 when the run had no meaningful result.
"""

import argparse
import random
import resource
import socket
import statistics
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import gevent
from gevent.socket import socket as GreenSocket

from bench import BenchError
from bench.isolation import isolate
from faults.measure import SETTLE_SECONDS
from faults.server import LARGE_BYTES, POLICY, Server
from testkit.clients import BARE, REQUEST

REPLY = POLICY.encode() + b"\0"
SECONDS = 600.0
CLIENTS = 200  # at a time; most wait: for the server, or between two bytes
PAUSE = 0.35  # mean seconds between two connections of one client: about 400 connections a second in all
TIMEOUT = 15.0  # seconds for one operation
WARM_UP = 0.25  # share of the time until memory is first taken; caches and the admin page's history fill in it
MAX_WARM_UP = 120.0
SAMPLE_SECONDS = 1.0
MAX_GROWTH = 1 << 20  # bytes
SEED = 843


class Connection:
    """One connection to the server."""

    def __init__(self, port: int, *, small_window: bool = False) -> None:
        self.socket = GreenSocket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if small_window:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def shut_down(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def read_all(self) -> bytes:
        """All bytes until the end of the stream. Raises OSError if that is an RST."""
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def set_close_with_rst(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass(frozen=True)
class Kind:
    """A kind of connection: how it is counted, and its reply; None: any."""

    run: Callable[[Connection, random.Random], bytes | None]
    outcome: str
    reply: bytes | None
    large: bool = False


def _good(connection: Connection, _: random.Random) -> bytes:
    connection.send(REQUEST)
    return connection.read_all()


def _split(connection: Connection, generator: random.Random) -> bytes:
    rest = REQUEST
    while rest:
        size = generator.randint(1, 8)
        connection.send(rest[:size])
        rest = rest[size:]
        gevent.sleep(generator.uniform(0, 0.02))
    return connection.read_all()


def _newline(connection: Connection, _: random.Random) -> bytes:
    connection.send(BARE + b"\r\n")
    return connection.read_all()


def _half_closed(connection: Connection, _: random.Random) -> bytes:
    connection.send(BARE)
    connection.shut_down()
    return connection.read_all()


def _unterminated(connection: Connection, _: random.Random) -> bytes:
    connection.send(BARE)
    return connection.read_all()


def _more(connection: Connection, generator: random.Random) -> bytes:
    connection.send(REQUEST + generator.randbytes(generator.randint(1, 20_000)))
    return connection.read_all()


def _http(connection: Connection, _: random.Random) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    if not connection.read_all().startswith(b"HTTP/1.1 400 "):
        raise AssertionError("HTTP got no 400 reply")


def _tls(connection: Connection, generator: random.Random) -> None:
    connection.send(b"\x16\x03\x01" + generator.randbytes(200))
    _read_any(connection)


def _garbage(connection: Connection, generator: random.Random) -> None:
    # The first byte is that of no known protocol.
    connection.send(b"\xff" + generator.randbytes(generator.randint(0, 50_000)))
    _read_any(connection)


def _half_and_fin(connection: Connection, generator: random.Random) -> None:
    connection.send(REQUEST[: generator.randint(1, 21)])


def _half_and_rst(connection: Connection, generator: random.Random) -> None:
    connection.send(REQUEST[: generator.randint(1, 21)])
    connection.set_close_with_rst()


def _scan(connection: Connection, _: random.Random) -> None:
    """Connect and close."""


def _scan_and_rst(connection: Connection, _: random.Random) -> None:
    connection.set_close_with_rst()


def _silent(connection: Connection, _: random.Random) -> None:
    _read_any(connection)


def _slow_reader(connection: Connection, generator: random.Random) -> bytes:
    connection.send(REQUEST)
    gevent.sleep(generator.uniform(0, 1.0))
    return connection.read_all()


def _read_any(connection: Connection) -> None:
    """Read to the end, which may be an RST, since the server closes without reading all input."""
    with suppress(ConnectionError):
        connection.read_all()


KINDS = {
    "good": Kind(_good, "replies", REPLY),
    "split": Kind(_split, "replies", REPLY),
    "CRLF for NUL": Kind(_newline, "replies", REPLY),
    "FIN for NUL": Kind(_half_closed, "replies", REPLY),
    "nothing for NUL": Kind(_unterminated, "replies", REPLY),
    "extra bytes": Kind(_more, "replies", REPLY),
    "HTTP": Kind(_http, "http", None),
    "TLS": Kind(_tls, "tls", None),
    "garbage": Kind(_garbage, "other", None),
    "half and FIN": Kind(_half_and_fin, "resets", None),
    "half and RST": Kind(_half_and_rst, "resets", None),
    "scan and FIN": Kind(_scan, "resets", None),
    "scan and RST": Kind(_scan_and_rst, "resets", None),
    "silent": Kind(_silent, "timeouts", None),
    "slow reader": Kind(_slow_reader, "replies", POLICY.encode() + b" " * (LARGE_BYTES - len(POLICY)) + b"\0", True),
}
# Most are good clients; slow readers are rare, since each moves a megabyte.
WEIGHTS = {"good": 60, "split": 10, "silent": 3, "slow reader": 1}


@dataclass
class Tally:
    """What this program counted: connections by kind, expected outcomes by listener, and errors."""

    connections: Counter[str]
    expected: dict[str, Counter[str]]
    errors: list[str]

    @classmethod
    def empty(cls) -> "Tally":
        return cls(Counter(), {"small": Counter(), "large": Counter()}, [])


def _run_client(server: Server, tally: Tally, until: float, generator: random.Random) -> None:
    names = list(KINDS)
    weights = [WEIGHTS.get(name, 4) for name in names]
    while time.monotonic() < until:
        [name] = generator.choices(names, weights)
        kind = KINDS[name]
        tally.connections[name] += 1
        tally.expected["large" if kind.large else "small"][kind.outcome] += 1
        try:
            connection = Connection(server.ports["large"] if kind.large else server.port, small_window=kind.large)
            with connection.socket:
                got = kind.run(connection, generator)
            if kind.reply is not None and got != kind.reply:
                tally.errors.append(f"{name}: received {len(got or b''):,} bytes that are not the reply")
        except (OSError, AssertionError) as error:
            tally.errors.append(f"{name}: {error}")
        gevent.sleep(generator.uniform(0, 2 * PAUSE))


def soak(seconds: float) -> list[str]:
    """Run it and print the counts. Returns what is wrong, in words."""
    tally, resident = Tally.empty(), []
    with Server() as server:
        files = server.files()
        start = time.monotonic()
        generator = random.Random(SEED)
        clients = [
            gevent.spawn(_run_client, server, tally, start + seconds, random.Random(generator.random()))
            for _ in range(CLIENTS)
        ]
        while any(not client.dead for client in clients):
            gevent.sleep(SAMPLE_SECONDS)
            resident.append((time.monotonic() - start, server.resident()))
        account = server.settled(SETTLE_SECONDS)
        seen = {name: Counter(account.outcomes(name)) for name in tally.expected}
        left = server.files()
    warm = [size for at, size in resident if at >= min(MAX_WARM_UP, WARM_UP * seconds)]
    tenth = max(1, len(warm) // 10)
    growth = statistics.median(warm[-tenth:]) - statistics.median(warm[:tenth])
    wrong = tally.errors[:10]
    for name, expected in tally.expected.items():
        wrong += [
            f"listener {name}: {what} counted {seen[name][what]:,} times, expected {expected[what]:,}"
            for what in sorted(expected.keys() | seen[name].keys())
            if seen[name][what] != expected[what]
        ]
    if left != files:
        wrong.append(f"{left} descriptors at the end, {files} at the start")
    if growth > MAX_GROWTH:
        wrong.append(f"memory grew by {growth / 1e6:.2f} MB")
    print(f"{sum(tally.connections.values()):,} connections in {seconds:.0f} s: ", end="")
    print(", ".join(f"{count:,} {name}" for name, count in tally.connections.most_common()))
    for name, counts in seen.items():
        print(f"listener {name} counted {', '.join(f'{count:,} {what}' for what, count in sorted(counts.items()))}")
    print(f"memory of all processes {growth / 1e6:+.2f} MB from {warm[0] / 1e6:.1f} MB; descriptors {files} -> {left}")
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m faults.soak", description="Mixed traffic: memory, descriptors, exact counters."
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"default {SECONDS:.0f}")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    isolate()  # optional: the result is the same without
    try:
        wrong = soak(arguments.seconds)
    except BenchError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    for line in wrong:
        print(f"wrong: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
