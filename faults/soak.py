"""Mixed traffic for minutes: ``python -m faults.soak [--seconds S]``. Memory and descriptors stay, counters are exact.

A connection is one of `VISITS`, each of which knows how the server must count it and what it must get. In the end the
server's counters must be what was counted here, to the last one; its processes must have the descriptors that they had,
and no more memory than when the traffic was under way for a while.

Exit status: 0 if so, 1 if not, 2 when the run could tell nothing.
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

REQUEST = b"<policy-file-request/>\0"
BARE = REQUEST[:-1]
REPLY = POLICY.encode() + b"\0"
SECONDS = 600.0
VISITORS = 200  # at a time; most wait: for the server, or between two bytes
PAUSE = 0.35  # seconds between two visits of one visitor: some 400 connections a second in all
PATIENCE = 15.0  # seconds for whatever the server owes
WARM_UP = 0.25  # share of the time after which memory is compared with; caches and the admin page's history fill
MOST_WARM_UP = 120.0
SAMPLE = 1.0  # seconds
GROWTH_BYTES = 1 << 20
SEED = 843


class Visit:
    """One connection to the server."""

    def __init__(self, port: int, *, small_window: bool = False) -> None:
        self.socket = GreenSocket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if small_window:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", port))

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def finish(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """All until the end of the stream. Raises OSError if that is an RST."""
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@dataclass(frozen=True)
class Kind:
    """A kind of visit: how it is counted, and what it gets; None: whatever comes."""

    run: Callable[[Visit, random.Random], bytes | None]
    outcome: str
    gets: bytes | None
    large: bool = False


def _good(visit: Visit, _: random.Random) -> bytes:
    visit.send(REQUEST)
    return visit.rest()


def _split(visit: Visit, dice: random.Random) -> bytes:
    rest = REQUEST
    while rest:
        size = dice.randint(1, 8)
        visit.send(rest[:size])
        rest = rest[size:]
        gevent.sleep(dice.uniform(0, 0.02))
    return visit.rest()


def _newline(visit: Visit, _: random.Random) -> bytes:
    visit.send(BARE + b"\r\n")
    return visit.rest()


def _half_closed(visit: Visit, _: random.Random) -> bytes:
    visit.send(BARE)
    visit.finish()
    return visit.rest()


def _unterminated(visit: Visit, _: random.Random) -> bytes:
    visit.send(BARE)
    return visit.rest()


def _more(visit: Visit, dice: random.Random) -> bytes:
    visit.send(REQUEST + dice.randbytes(dice.randint(1, 20_000)))
    return visit.rest()


def _http(visit: Visit, _: random.Random) -> None:
    visit.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    if not visit.rest().startswith(b"HTTP/1.1 400 "):
        raise AssertionError("HTTP was not answered with 400")


def _tls(visit: Visit, dice: random.Random) -> None:
    visit.send(b"\x16\x03\x01" + dice.randbytes(200))
    _whatever(visit)


def _garbage(visit: Visit, dice: random.Random) -> None:
    # A first byte that begins nothing that is known.
    visit.send(b"\xff" + dice.randbytes(dice.randint(0, 50_000)))
    _whatever(visit)


def _half_and_away(visit: Visit, dice: random.Random) -> None:
    visit.send(REQUEST[: dice.randint(1, 21)])


def _half_and_reset(visit: Visit, dice: random.Random) -> None:
    visit.send(REQUEST[: dice.randint(1, 21)])
    visit.reset()


def _scan(visit: Visit, _: random.Random) -> None:
    """Connect and close."""


def _scan_and_reset(visit: Visit, _: random.Random) -> None:
    visit.reset()


def _silent(visit: Visit, _: random.Random) -> None:
    _whatever(visit)


def _slow_reader(visit: Visit, dice: random.Random) -> bytes:
    visit.send(REQUEST)
    gevent.sleep(dice.uniform(0, 1.0))
    return visit.rest()


def _whatever(visit: Visit) -> None:
    """The server closes with our input unread, so it may be an RST."""
    with suppress(ConnectionError):
        visit.rest()


VISITS = {
    "good": Kind(_good, "replies", REPLY),
    "split": Kind(_split, "replies", REPLY),
    "CRLF for NUL": Kind(_newline, "replies", REPLY),
    "FIN for NUL": Kind(_half_closed, "replies", REPLY),
    "nothing for NUL": Kind(_unterminated, "replies", REPLY),
    "extra bytes": Kind(_more, "replies", REPLY),
    "HTTP": Kind(_http, "http", None),
    "TLS": Kind(_tls, "tls", None),
    "garbage": Kind(_garbage, "other", None),
    "half and FIN": Kind(_half_and_away, "resets", None),
    "half and RST": Kind(_half_and_reset, "resets", None),
    "scan and FIN": Kind(_scan, "resets", None),
    "scan and RST": Kind(_scan_and_reset, "resets", None),
    "silent": Kind(_silent, "timeouts", None),
    "slow reader": Kind(_slow_reader, "replies", POLICY.encode() + b" " * (LARGE_BYTES - len(POLICY)) + b"\0", True),
}
# Good clients are the most; a slow reader moves a megabyte.
WEIGHTS = {"good": 60, "split": 10, "silent": 3, "slow reader": 1}


@dataclass
class Tally:
    """What we did: visits by kind, outcomes that the server must have counted by listener, and what went wrong."""

    visits: Counter[str]
    expected: dict[str, Counter[str]]
    wrong: list[str]

    @classmethod
    def empty(cls) -> "Tally":
        return cls(Counter(), {"small": Counter(), "large": Counter()}, [])


def _visit(server: Server, tally: Tally, until: float, dice: random.Random) -> None:
    names = list(VISITS)
    weights = [WEIGHTS.get(name, 4) for name in names]
    while time.monotonic() < until:
        [name] = dice.choices(names, weights)
        kind = VISITS[name]
        tally.visits[name] += 1
        tally.expected["large" if kind.large else "small"][kind.outcome] += 1
        try:
            visit = Visit(server.large_port if kind.large else server.port, small_window=kind.large)
            with visit.socket:
                got = kind.run(visit, dice)
            if kind.gets is not None and got != kind.gets:
                tally.wrong.append(f"{name}: {len(got or b''):,} bytes came that are not the reply")
        except (OSError, AssertionError) as error:
            tally.wrong.append(f"{name}: {error}")
        gevent.sleep(dice.uniform(0, 2 * PAUSE))


def soak(seconds: float) -> list[str]:
    """Run it and print what was seen; what is wrong, in words."""
    tally, resident = Tally.empty(), []
    with Server() as server:
        files = server.files()
        began = time.monotonic()
        dice = random.Random(SEED)
        visitors = [
            gevent.spawn(_visit, server, tally, began + seconds, random.Random(dice.random())) for _ in range(VISITORS)
        ]
        while any(not visitor.dead for visitor in visitors):
            gevent.sleep(SAMPLE)
            resident.append((time.monotonic() - began, server.resident()))
        account = server.settled(SETTLE_SECONDS)
        seen = {name: Counter(account.outcomes(name)) for name in tally.expected}
        left = server.files()
    warm = [size for at, size in resident if at >= min(MOST_WARM_UP, WARM_UP * seconds)]
    tenth = max(1, len(warm) // 10)
    growth = statistics.median(warm[-tenth:]) - statistics.median(warm[:tenth])
    wrong = tally.wrong[:10]
    for name, expected in tally.expected.items():
        wrong += [
            f"listener {name}: {what} counted {seen[name][what]:,} times, and there were {expected[what]:,}"
            for what in sorted(expected.keys() | seen[name].keys())
            if seen[name][what] != expected[what]
        ]
    if left != files:
        wrong.append(f"{left} descriptors in the end, {files} in the beginning")
    if growth > GROWTH_BYTES:
        wrong.append(f"memory grew by {growth / 1e6:.2f} MB")
    print(f"{sum(tally.visits.values()):,} connections in {seconds:.0f} s: ", end="")
    print(", ".join(f"{count:,} {name}" for name, count in tally.visits.most_common()))
    for name, counts in seen.items():
        print(f"listener {name} counted {', '.join(f'{count:,} {what}' for what, count in sorted(counts.items()))}")
    print(f"memory of all processes {growth / 1e6:+.2f} MB from {warm[0] / 1e6:.1f} MB; descriptors {files} -> {left}")
    return wrong


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m faults.soak", description="Mixed traffic, exact accounts.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"default {SECONDS:.0f}")
    arguments = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    isolate()  # better with, as good without
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
