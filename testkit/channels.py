"""What random clients speak through: a plain socket, or TLS on it, as coroutines of an asyncio loop.

TLS is cut, delayed and ended in random ways. `Channel.end` says how the server ended what was received.
"""

import asyncio
import random
import socket
import ssl
from contextlib import suppress

from testkit.tls import RECORD, Refused, TlsClient, client_context, only

CONTEXTS = [
    client_context(),
    only(ssl.TLSVersion.TLSv1_2),
    only(ssl.TLSVersion.TLSv1_3),
    client_context(alpn=["h2", "http/1.1"]),
    client_context(alpn=["h2"]),  # refused
    only(ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA"),  # refused, but by a profile for old clients
]
NAMES = [None, "games.test", "a.wild.test", "unknown.test"]


class Ended(ConnectionError):
    """The client has ended the connection on purpose, or the server has refused it."""


class Channel:
    """Plain text."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.end = ""

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def receive(self, size: int) -> bytes:
        data = await self.loop.sock_recv(self.sock, size)
        if not data:
            self.end = "fin"
        return data

    def shutdown(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


class TlsChannel(Channel):
    """TLS on the socket, by a random kind of client."""

    def __init__(self, sock: socket.socket, generator: random.Random) -> None:
        super().__init__(sock)
        self.random = generator
        self.client = TlsClient(
            None, generator.choices(CONTEXTS, [40, 20, 20, 10, 4, 6])[0], name=generator.choice(NAMES)
        )
        self.plain = bytearray()
        self.notified = False

    async def _send_wire(self, wire: bytes) -> None:
        """All of it, at times in small pieces."""
        if self.random.random() < 0.2:
            while wire:
                size = self.random.randint(1, 400)
                await self.loop.sock_sendall(self.sock, wire[:size])
                wire = wire[size:]
                await asyncio.sleep(self.random.choice([0, 0, 0, 0.002, 0.02]))
        else:
            await self.loop.sock_sendall(self.sock, wire)

    async def handshake(self) -> None:
        """Raises Ended if it was refused, or if the client has left on purpose in the middle of it."""
        leaves = self.random.random() < 0.1
        try:
            while not self.client.step():
                wire = self.client.take()
                if leaves and self.random.random() < 0.5:
                    await self._send_wire(wire[: self.random.randint(0, len(wire))])
                    await asyncio.sleep(self.random.choice([0, 0.01, 0.1, 1.0]))
                    raise Ended
                await self._send_wire(wire)
                if not (data := await self.loop.sock_recv(self.sock, RECORD)):
                    raise Ended
                self.client.give(data)
            await self._send_wire(self.client.take())
        except Refused as refused:
            raise Ended from refused

    async def send(self, data: bytes) -> None:
        pieces = [data]
        if self.random.random() < 0.2:  # several records, in one segment
            at = self.random.randint(0, len(data))
            pieces = [piece for piece in (data[:at], data[at:]) if piece]
        await self._send_wire(b"".join(map(self.client.encrypt, pieces)))

    async def receive(self, size: int) -> bytes:
        while not self.plain:
            wire = await self.loop.sock_recv(self.sock, size)
            if not wire:
                self.end = "close_notify fin" if self.notified else "fin"
                return b""
            assert not self.notified, f"{len(wire)} bytes after the close_notify"
            self.client.give(wire)
            try:
                self.plain += self.client.decrypt()
            except ssl.SSLError as error:  # an alert
                raise Ended from error
            self.notified = self.client.notified
        found = bytes(self.plain[:size])
        del self.plain[:size]
        return found

    def shutdown(self) -> None:
        """close_notify, FIN, or both, as clients do."""
        how = self.random.choice(["both", "both", "close_notify", "fin"])
        if how != "fin":
            with suppress(BlockingIOError):
                self.sock.send(self.client.farewell())
        if how != "close_notify":
            self.sock.shutdown(socket.SHUT_WR)
