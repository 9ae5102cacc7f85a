"""The chat: messages of XML with a NUL at the end of each, as XMLSocket sends and expects them.

A client sends `<join name="Ada"/>` and gets `<welcome name="Ada" others="2"/>`; then it sends `<say text="hello"/>`.
All clients get `<joined name="Ada"/>`, `<said name="Ada" text="hello"/>` and `<left name="Ada"/>`.

It runs behind flashpol, which writes a PROXY header in front of each connection: the address of the player.
"""

import argparse
import asyncio
import contextlib
import sys
from xml.etree import ElementTree

LONGEST_MESSAGE = 4096
LONGEST_NAME, LONGEST_TEXT = 20, 200
MOST_UNREAD = 1 << 16  # bytes for a client that does not read; it is cut then


class Player:
    def __init__(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.name, self._writer = name, writer

    def send(self, kind: str, **attributes: str) -> None:
        message = ElementTree.tostring(ElementTree.Element(kind, attributes), encoding="unicode")
        self._writer.write(message.encode() + b"\0")
        if self._writer.transport.get_write_buffer_size() > MOST_UNREAD:
            self._writer.transport.abort()


class Chat:
    def __init__(self) -> None:
        self._players: list[Player] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        player = None
        try:
            address = proxied(await reader.readline())
            player = self._join(await receive(reader, "join"), writer)
            print(f"{player.name} joined from {address}", flush=True)
            while True:
                text = (await receive(reader, "say")).get("text", "")[:LONGEST_TEXT]
                self._tell("said", name=player.name, text=text)
        except (ValueError, OSError, EOFError, asyncio.LimitOverrunError):  # it has left, or is no client of a chat
            pass
        finally:
            if player:
                self._players.remove(player)
                self._tell("left", name=player.name)
                print(f"{player.name} left", flush=True)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _join(self, message: ElementTree.Element, writer: asyncio.StreamWriter) -> Player:
        wanted = message.get("name", "").strip()[:LONGEST_NAME] or "Anonymous"
        taken = {player.name for player in self._players}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted} {number}"
        self._tell("joined", name=name)
        player = Player(name, writer)
        player.send("welcome", name=name, others=str(len(self._players)))
        self._players.append(player)
        return player

    def _tell(self, kind: str, **attributes: str) -> None:
        for player in self._players:
            player.send(kind, **attributes)


def proxied(header: bytes) -> str:
    """The client's address in a PROXY header of version 1; ValueError for anything else."""
    signature, family, source, _, port, _ = header.decode("ascii").split()
    if signature != "PROXY":
        raise ValueError("no PROXY header")
    return f"[{source}]:{port}" if family == "TCP6" else f"{source}:{port}"


async def receive(reader: asyncio.StreamReader, kind: str) -> ElementTree.Element:
    """The next message, which must be of this kind: otherwise ValueError."""
    text = (await reader.readuntil(b"\0"))[:-1].decode()
    if "<!" in text:  # no message has a document type, which could declare entities
        raise ValueError("a document type")
    try:
        message = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None
    if message.tag != kind:
        raise ValueError(f"{message.tag} instead of {kind}")
    return message


async def main(host: str, port: int) -> None:
    server = await asyncio.start_server(Chat().serve, host, port, limit=LONGEST_MESSAGE)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="the chat of the demo, which flashpol is in front of")
    parser.add_argument("address", nargs="?", default="127.0.0.1:7001", help="HOST:PORT (default: %(default)s)")
    address, _, number = parser.parse_args().address.rpartition(":")
    try:
        asyncio.run(main(address.strip("[]"), int(number)))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"application.py: {error}")
