"""A shared port for as long as wanted: sessions that are opened, stalled, half-closed and reset at random.

    python tests/soak_relay.py [--seconds N] [--gigabytes N]      from the root of the repository; `make soak-relay`

What arrives is compared by hash with what was sent; in the end nothing may be left: no session, no descriptor,
no connection that was not counted.
"""

import argparse
import asyncio
import hashlib
import random
import socket
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from testkit.clients import REQUEST
from testkit.polling import eventually
from testkit.processes import Flashpol

POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="7000"/></cross-domain-policy>'
AT_ONCE = 60
ACTION_SECONDS = 30.0
BLOCK = random.Random(4).randbytes(1 << 20)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Application:
    """The first byte of a session selects: echo ("e"), send a hash ("h"), send n blocks ("s"), reset ("r")."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            what = await reader.readexactly(1)
            if what == b"r":
                await reader.read(10)
                reset(writer)
                return
            if what == b"s":
                for _ in range(int.from_bytes(await reader.readexactly(4))):
                    writer.write(BLOCK)
                    await writer.drain()
            else:
                digest = hashlib.sha256()
                while data := await reader.read(1 << 16):
                    digest.update(data)
                    if what == b"e":
                        writer.write(data)
                        await writer.drain()
                writer.write(digest.digest() if what == b"h" else b"")
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()


class Clients:
    def __init__(self, place: tuple[str, int], generator: random.Random) -> None:
        self.place = place
        self.random = generator
        self.done: Counter[str] = Counter()

    async def _open(self) -> Stream:
        return await asyncio.open_connection(*self.place)

    async def policy(self) -> None:
        reader, writer = await self._open()
        writer.write(REQUEST)
        assert await reader.read() == POLICY + b"\0"
        writer.close()

    async def echo(self) -> None:
        """Echoed words, then a half-close, after which the rest is still echoed."""
        reader, writer = await self._open()
        writer.write(b"e")
        for _ in range(self.random.randrange(1, 8)):
            word = self.random.randbytes(self.random.choice([1, 100, 5000]))
            writer.write(word)
            assert await reader.readexactly(len(word)) == word
        last = BLOCK[: self.random.randrange(1 << 17)]
        writer.write(last)
        writer.write_eof()
        assert await reader.read() == last
        writer.close()

    async def stall(self) -> None:
        """Ask for many blocks, read late; all of them arrive."""
        reader, writer = await self._open()
        blocks = self.random.randrange(1, 6)
        writer.write(b"s" + blocks.to_bytes(4))
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(self.random.random() / 2)
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(blocks):
            assert await reader.readexactly(len(BLOCK)) == BLOCK
        assert await reader.read() == b""
        writer.close()

    async def leave(self) -> None:
        """Stall, then reset."""
        _, writer = await self._open()
        writer.write(b"s" + (20).to_bytes(4))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(self.random.random() / 4)
        reset(writer)

    async def be_left(self) -> None:
        reader, writer = await self._open()
        writer.write(b"r and more")
        try:
            assert await reader.read() == b""
            raise AssertionError("FIN instead of RST")
        except ConnectionResetError:
            writer.transport.abort()

    async def bulk(self, blocks: int) -> None:
        """Send so many blocks, compare the hash, and receive as many."""
        reader, writer = await self._open()
        writer.write(b"h")
        digest = hashlib.sha256()
        for _ in range(blocks):
            writer.write(BLOCK)
            digest.update(BLOCK)
            await writer.drain()
        writer.write_eof()
        assert await reader.read() == digest.digest()
        writer.close()
        reader, writer = await self._open()
        writer.write(b"s" + blocks.to_bytes(4))
        received = hashlib.sha256()
        while data := await reader.read(1 << 18):
            received.update(data)
        assert received.digest() == digest.digest()
        writer.close()

    async def wander(self, end: float) -> None:
        while time.monotonic() < end:
            what = self.random.choice([self.policy, self.echo, self.stall, self.leave, self.be_left])
            async with asyncio.timeout(ACTION_SECONDS):
                await what()
            self.done[what.__name__] += 1


async def exercise(place: tuple[str, int], listening: socket.socket, seconds: float, blocks: int, seed: int) -> Counter:
    clients = Clients(place, random.Random(seed))
    server = await asyncio.start_server(Application().serve, sock=listening)
    async with server, asyncio.TaskGroup() as group:
        end = time.monotonic() + seconds
        for _ in range(AT_ONCE):
            group.create_task(clients.wander(end))
        for _ in range(2):
            group.create_task(clients.bulk(blocks))
    return clients.done


def soak(seconds: float, blocks: int, seed: int, workers: int = 2) -> Counter:
    """How often each action was done. Raises AssertionError."""
    with tempfile.TemporaryDirectory() as name, socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        folder = Path(name)
        (folder / "policy.xml").write_bytes(POLICY)
        (folder / "flashpol.toml").write_text(
            '[policies.p]\nfile = "policy.xml"\n[[listeners]]\nname = "shared"\naddress = "127.0.0.1:0"\n'
            f'upstream = "127.0.0.1:{listening.getsockname()[1]}"\n'
        )
        with Flashpol("-c", folder / "flashpol.toml", listen=(), workers=workers) as server:
            files = server.metrics().total("worker_open_files")
            done = asyncio.run(exercise(server.place, listening, seconds, blocks, seed))
            eventually(lambda: server.metrics().total("connections_open") == 0, "the end of all connections")
            metrics = server.metrics()
            assert metrics.total("relay_sessions_open") == metrics.total("sessions") == 0
            server.counts(files, "worker_open_files")
            started, ended = metrics.total("relay_sessions_started_total"), metrics.total("relay_ends_total")
            assert started == ended == metrics.total("relayed_total")
            server.counts(done["policy"], "replies_total")
            server.counts(done["be_left"], "relay_ends_total", by="upstream_reset")
            outcomes = ("replies_total", "relayed_total", "refused_total", "timeouts_total", "resets_total")
            assert metrics.total("connections_accepted_total") == sum(map(metrics.total, outcomes))
            assert server.stop() == 0
            assert not server.complaints
    return done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    # Two streams in each direction.
    print(dict(soak(arguments.seconds, max(1, int(arguments.gigabytes * 1024 / 4)), arguments.seed)))


if __name__ == "__main__":
    main()
