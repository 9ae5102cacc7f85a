"""The applications behind the shared ports of random clients."""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Iterator

from testkit.processes import free_port

GREETING = b"welcome, player\n"


class Applications:
    """Those behind the shared ports: an echo, one that speaks first, one with a full accept queue, and none.

    A few of their connections are reset, closed or left unread, whatever the client does.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._stack = contextlib.AsyncExitStack()
        self.addresses: dict[str, str] = {}

    async def __aenter__(self) -> "Applications":
        for name, greeting in (("echo", b""), ("speaker", GREETING)):
            listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
            self.addresses[name] = f"127.0.0.1:{listening.getsockname()[1]}"
            server = await asyncio.start_server(lambda r, w, g=greeting: self._serve(r, w, g), sock=listening)
            self._stack.callback(server.close)
        self.addresses["dead"] = self._stack.enter_context(full_queue())
        self.addresses["refusing"], self.addresses["refusing2"] = (f"127.0.0.1:{free_port()}" for _ in range(2))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, greeting: bytes) -> None:
        how = self._random.choices(["echo", "reset", "close", "stall"], [85, 5, 5, 5])[0]
        try:
            writer.write(greeting)
            if how == "reset":
                await reader.read(100)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            elif how == "close":
                writer.close()
            else:
                await asyncio.sleep(self._random.random() if how == "stall" else 0)
                while data := await reader.read(1 << 16):
                    writer.write(data)
                    await writer.drain()
                writer.close()
        except OSError:
            writer.transport.abort()


@contextlib.contextmanager
def full_queue() -> Iterator[str]:
    """The address of an application that accepts nothing more: the kernel drops each SYN."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(listening.getsockname())
            except TimeoutError:
                break
        yield f"127.0.0.1:{listening.getsockname()[1]}"
