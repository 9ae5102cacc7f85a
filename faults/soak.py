"""Mixed traffic for minutes, with constant memory and descriptors and exact counters: ``python -m faults.soak``.

Sessions of a shared port are WebSockets that come and go, with and without TLS and compression. Films are played and
published by RTMPT, and compared (`media.py`). The server reloads in between. Every connection is of
one of `KINDS` and the others, each of which defines how the server must count it and what reply it must get. At the end
the server's counters must be exactly those of this program. Its processes must have as many descriptors as at the
start, and no more memory than after a warm-up.

Exit status: 0 if so, 1 if not, 2 when the run had no meaningful result.
"""

import argparse
import random
import resource
import signal
import socket
import ssl
import statistics
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import gevent
from gevent.socket import socket as GreenSocket
from gevent.ssl import SSLContext

from bench import BenchError
from bench.isolation import isolate
from faults.build import has_tls
from faults.certificates import NAME
from faults.hello import SERVER_NAME
from faults.measure import SETTLE_SECONDS
from faults.media import Media, media
from faults.server import LARGE_BYTES, LISTENERS, POLICY, Listener, Server
from faults.shared import application, websocket_paths
from faults.websocket import BINARY, CLOSE, DEFLATE, DEFLATE_WINDOW, PING, REFUSED_PORT, frame, request, switched
from testkit.clients import BARE, REQUEST
from testkit.polling import eventually

REPLY = POLICY.encode() + b"\0"
SECONDS = 600.0
CLIENTS = 200  # at a time; most wait: for the server, or between two bytes
PAUSE = 0.35  # mean seconds between two connections of one client: about 400 connections a second in all
TIMEOUT = 15.0  # seconds for one operation
WARM_UP = 0.25  # share of the time until memory is first taken; caches and the admin page's history fill in it
MAX_WARM_UP = 120.0
SAMPLE_SECONDS = 1.0
MAX_GROWTH = 1 << 20  # bytes
FILES_SECONDS = 15.0  # until there are as many descriptors as before: also until the last reload is over
RELOAD_SECONDS = 20.0  # between two reloads, in the first half of the time: memory is compared in the second
# A client of the shared port whose first byte comes later is relayed as it is; a busy machine takes a second.
FIRST_BYTE_TIMEOUT = 10.0
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

    def secure(self, authority: Path) -> None:
        """From now on in TLS. authority: the file with the certificate that signs the server's."""
        context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authority)
        self.socket = context.wrap_socket(self.socket, server_hostname=SERVER_NAME)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, size: int) -> bytes:
        """Exactly so many bytes. Raises AssertionError if the stream ends before."""
        data = bytearray()
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise AssertionError(f"the server's stream ends after {len(data)} of {size} bytes")
            data += piece
        return bytes(data)

    def read_frame(self) -> tuple[int, bytes]:
        """A server's frame: its first byte, and its payload."""
        first, size = self.read(2)
        if size > 125:
            size = int.from_bytes(self.read(2 if size == 126 else 8), "big")
        return first, self.read(size)

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
    listener: str = "small"
    tls: bool = False

    @property
    def large(self) -> bool:
        return self.listener == "large"


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


# ------------------------------------------------------------------------------------------------------- WebSocket

_PACKED = "/packed"
_STRICT = "/strict"  # the policy refuses all of its origins


def _open(connection: Connection, path: str = "/", fields: str = "") -> bytes:
    """Open a WebSocket. Returns the reply's head."""
    connection.send(request(path, fields=fields))
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        head += connection.read(1)
    if not head.startswith(b"HTTP/1.1 101 "):
        raise AssertionError(f"no WebSocket: {bytes(head[:40])!r}")
    return bytes(head)


def _exchange(connection: Connection, payload: bytes, said: bytes) -> None:
    """Send these frames, and read messages until they are this payload; control frames between them do not matter."""
    connection.send(said)
    got = bytearray()
    while len(got) < len(payload):
        first, piece = connection.read_frame()
        if first & CLOSE:  # the bit that control frames have
            continue
        if first & 0x40:
            piece = zlib.decompressobj(-zlib.MAX_WBITS).decompress(piece + b"\0\0\xff\xff")
        got += piece
    if got != payload:
        raise AssertionError(f"{len(payload):,} bytes came back as {len(got):,} others")


def _close(connection: Connection) -> None:
    """Send Close, and read the server's and its FIN."""
    connection.send(frame(CLOSE, (1000).to_bytes(2, "big")))
    while connection.read_frame()[0] & 0x0F != CLOSE:
        pass
    connection.read_all()


def _play(connection: Connection, generator: random.Random, *, compressed: bool = False) -> None:
    """A few messages of any size, some in fragments."""
    for _ in range(generator.randint(1, 6)):
        payload = generator.randbytes(100) * generator.randint(0, 150)
        if compressed and payload:
            packer = zlib.compressobj(6, zlib.DEFLATED, -DEFLATE_WINDOW)
            packed = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
            said = frame(BINARY, packed[:-4], compressed=True)
        else:
            at = generator.randint(0, len(payload))
            said = frame(BINARY, payload[:at], fin=False) + frame(PING, b"soak") + frame(0, payload[at:])
        _exchange(connection, payload, said)
        gevent.sleep(generator.uniform(0, 0.3))


def _websocket(connection: Connection, generator: random.Random) -> None:
    if _open(connection) != switched():
        raise AssertionError("another reply than for this key")
    _play(connection, generator)
    _close(connection)


def _packed_websocket(connection: Connection, generator: random.Random) -> None:
    _open(connection, _PACKED, f"Sec-WebSocket-Extensions: {DEFLATE}\r\n")
    _play(connection, generator, compressed=True)
    _close(connection)


def _websocket_and_fin(connection: Connection, generator: random.Random) -> None:
    _open(connection)
    _play(connection, generator)


def _websocket_and_rst(connection: Connection, generator: random.Random) -> None:
    _open(connection)
    _play(connection, generator)
    connection.set_close_with_rst()


def _broken_frames(connection: Connection, generator: random.Random) -> None:
    _open(connection)
    connection.send(b"\xff" + generator.randbytes(generator.randint(1, 20_000)))
    _read_any(connection)


def _refused_origin(connection: Connection, _: random.Random) -> None:
    connection.send(request(_STRICT))
    if not connection.read_all().startswith(b"HTTP/1.1 403 "):
        raise AssertionError("an origin that the policy does not allow got no 403")


def _half_head_and_fin(connection: Connection, generator: random.Random) -> None:
    connection.send(request()[: generator.randint(4, 100)])


# The listener of these has a certificate if the build has TLS.
WEBSOCKETS = {
    "WebSocket": Kind(_websocket, "relayed", None, "games"),
    "packed WebSocket": Kind(_packed_websocket, "relayed", None, "games"),
    "WebSocket and FIN": Kind(_websocket_and_fin, "relayed", None, "games"),
    "WebSocket and RST": Kind(_websocket_and_rst, "relayed", None, "games"),
    "broken frames": Kind(_broken_frames, "relayed", None, "games"),
    "refused origin": Kind(_refused_origin, "origin", None, "games"),
    "half head and FIN": Kind(_half_head_and_fin, "resets", None, "games"),
}
SECURED = {
    f"{name}, TLS": replace(WEBSOCKETS[name], tls=True)
    for name in ("WebSocket", "packed WebSocket", "WebSocket and FIN", "broken frames", "refused origin")
}

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
    "slow reader": Kind(_slow_reader, "replies", POLICY.encode() + b" " * (LARGE_BYTES - len(POLICY)) + b"\0", "large"),
}
# Most are good clients; slow readers are rare, since each moves a megabyte.
WEIGHTS = {"good": 60, "split": 10, "silent": 3, "slow reader": 1, **dict.fromkeys([*WEBSOCKETS, *SECURED], 2)}


@dataclass
class Tally:
    """What this program counted: connections by kind, expected outcomes by listener, and errors."""

    connections: Counter[str]
    expected: dict[str, Counter[str]]
    errors: list[str]

    @classmethod
    def empty(cls) -> "Tally":
        return cls(Counter(), {name: Counter() for name in ("small", "large", "games")}, [])


@contextmanager
def _server(*, tls: bool) -> Iterator[tuple[Server, Media]]:
    """Listeners with policies, a shared port with WebSocket, whose application echoes, and those of RTMPT."""
    paths = websocket_paths({_PACKED: {"compression": "true"}, _STRICT: {"port": REFUSED_PORT}})
    with application() as upstream, media({"first_byte_timeout": FIRST_BYTE_TIMEOUT}) as (films, more):
        options = {"upstream": f'"{upstream}"', "first_byte_timeout": FIRST_BYTE_TIMEOUT, **paths}
        games = Listener("games", options={**options, "tls": f'["{NAME}"]'} if tls else options)
        listeners = (*LISTENERS, games, *more)
        with Server(listeners=listeners, certificates=[NAME] if tls else [], http=True) as server:
            yield server, films


def _run_client(
    server: Server, kinds: Mapping[str, Kind], tally: Tally, until: float, generator: random.Random
) -> None:
    names = list(kinds)
    weights = [WEIGHTS.get(name, 4) for name in names]
    while time.monotonic() < until:
        [name] = generator.choices(names, weights)
        kind = kinds[name]
        tally.connections[name] += 1
        tally.expected[kind.listener][kind.outcome] += 1
        try:
            connection = Connection(server.ports[kind.listener], small_window=kind.large)
            try:
                if kind.tls:
                    connection.secure(server.authority)
                got = kind.run(connection, generator)
            finally:
                connection.socket.close()
            if kind.reply is not None and got != kind.reply:
                tally.errors.append(f"{name}: received {len(got or b''):,} bytes that are not the reply")
        except (OSError, AssertionError) as error:
            tally.errors.append(f"{name}: {error}")
        gevent.sleep(generator.uniform(0, 2 * PAUSE))


def soak(seconds: float) -> list[str]:
    """Run it and print the counts. Returns what is wrong, in words."""
    tally, resident, tls = Tally.empty(), [], has_tls()
    kinds = {**KINDS, **WEBSOCKETS, **(SECURED if tls else {})}
    with _server(tls=tls) as (server, films):
        files = server.files()
        start = time.monotonic()
        films.run(server, seconds)
        reload_at = start + min(RELOAD_SECONDS, seconds / 4)
        generator = random.Random(SEED)
        clients = [
            gevent.spawn(_run_client, server, kinds, tally, start + seconds, random.Random(generator.random()))
            for _ in range(CLIENTS)
        ]
        while any(not client.dead for client in clients):
            gevent.sleep(SAMPLE_SECONDS)
            resident.append((time.monotonic() - start, server.resident()))
            if reload_at <= time.monotonic() < start + seconds / 2:
                reload_at += RELOAD_SECONDS
                server.process.send_signal(signal.SIGHUP)
        gevent.get_hub().threadpool.apply(films.join)
        account = server.settled(SETTLE_SECONDS)
        tally.expected["tunnel"] = films.expected
        tally.errors += films.errors
        lost = {each.name: account.unaccounted(each.name) for each in server.listeners}
        seen = {name: Counter(account.outcomes(name)) for name in tally.expected}
        # The admin process closes the connection of the last scrape a little later.
        with suppress(BenchError):
            eventually(
                lambda: server.files() == files, "as many descriptors as before", FILES_SECONDS, error=BenchError
            )
        left = server.files()
    warm = [size for at, size in resident if at >= seconds / 2 + min(MAX_WARM_UP, WARM_UP * seconds)]
    tenth = max(1, len(warm) // 10)
    growth = statistics.median(warm[-tenth:]) - statistics.median(warm[:tenth])
    wrong = tally.errors[:10]
    for name, expected in tally.expected.items():
        wrong += [
            f"listener {name}: {what} counted {seen[name][what]:,} times, expected {expected[what]:,}"
            for what in sorted(expected.keys() | seen[name].keys())
            if seen[name][what] != expected[what]
        ]
    wrong += [f"listener {name}: {count} connections not accounted for" for name, count in lost.items() if count]
    if left != files:
        wrong.append(f"{left} descriptors at the end, {files} at the start")
    if growth > MAX_GROWTH:
        wrong.append(f"memory grew by {growth / 1e6:.2f} MB")
    print(f"{sum(tally.connections.values()):,} connections in {seconds:.0f} s: ", end="")
    print(", ".join(f"{count:,} {name}" for name, count in tally.connections.most_common()))
    for name, counts in seen.items():
        print(f"listener {name} counted {', '.join(f'{count:,} {what}' for what, count in sorted(counts.items()))}")
    print("RTMPT: " + ", ".join(f"{count:,} {what}" for what, count in films.done.items()))
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
