"""A proxy that gives messages their borders back, for clients that expect each of their messages as one.

flashpol relays a stream of bytes: what an application sends at once is a message, whatever messages the client sent.
This proxy reads what messages the client sends, passes them on as they are, and makes of the binary messages that come
back messages of the same sizes and of the same kind: text or binary, compressed or not. An empty message does not come
back.
"""

import asyncio
import zlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from testkit.websocket_frames import BINARY, CONTINUATION, TEXT, Frame, Frames, deflate, inflate


class Joiner:
    """What is known of one connection."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, int, bool]] = deque()  # size and kind of the client's messages that did not return
        self._client, self._server = Frames(), Frames()
        self._message: list[Frame] = []
        self._returned = bytearray()

    def from_client(self, data: bytes) -> bytes:
        """What returned meanwhile may be complete."""
        for frame in self._client.feed(data):
            if frame.opcode in (TEXT, BINARY) or (frame.opcode == CONTINUATION and self._message):
                self._message.append(frame)
                if frame.fin:
                    payload = b"".join(each.payload for each in self._message)
                    first, self._message = self._message[0], []
                    with suppress(zlib.error):  # the server will close the connection
                        plain = inflate(payload) if first.rsv1 else payload
                        self._sent.append((len(plain), first.opcode, first.rsv1))
        return self._complete()

    def from_server(self, data: bytes) -> bytes:
        out = b""
        for frame in self._server.feed(data):
            assert not frame.masked
            if frame.opcode == BINARY:
                assert frame.fin
                self._returned += inflate(frame.payload) if frame.rsv1 else frame.payload
                out += self._complete()
            else:
                out += bytes(frame)
        return out

    def _complete(self) -> bytes:
        out = b""
        while self._sent and self._sent[0][0] <= len(self._returned):
            size, opcode, compressed = self._sent.popleft()
            if size:
                plain = bytes(self._returned[:size])
                out += bytes(Frame(opcode, deflate(plain, level=1) if compressed else plain, fin=True, rsv1=compressed))
                del self._returned[:size]
        return out


@asynccontextmanager
async def joining_proxy(server: tuple[str, int]) -> AsyncIterator[int]:
    """Its port on loopback."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*server)
        try:
            to_server.write(await reader.readuntil(b"\r\n\r\n"))
            writer.write(await from_server.readuntil(b"\r\n\r\n"))
            joiner = Joiner()
            await asyncio.gather(up(joiner, reader, writer, to_server), down(joiner, from_server, writer))
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):  # a side has closed, or the run ends
            pass
        finally:
            writer.close()
            to_server.close()

    async def up(
        joiner: Joiner, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_server: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(1 << 18):
            to_server.write(data)
            writer.write(joiner.from_client(data))
            await to_server.drain()
        to_server.write_eof()

    async def down(joiner: Joiner, from_server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await from_server.read(1 << 18):
            writer.write(joiner.from_server(data))
            await writer.drain()
        writer.write_eof()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
