"""Real WebSocket clients. Each does the same, and says what it saw: the bytes of an echo, a pong, a closing handshake.

>>> CLIENTS["wsproto"]("wss://localhost:7000/", ca=site.ca.root, compression=True)
"""

import asyncio
import json
import os
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import picows
import websocket
import websockets
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, Request
from wsproto.extensions import PerMessageDeflate

from testkit.npm import Package
from testkit.polling import DEADLINE

ORIGIN = "https://games.example.com"
PROTOCOLS = ["binary", "base64"]  # that clients of websockify offer
SIZE = 1 << 20
PIECE = 1 << 14
SENT = os.urandom(SIZE // 2) + b"0123456789abcdef" * (SIZE // 32)
PING = b"are you there"
CODE, REASON = 4001, "enough"
NODE_WS = Package(
    "ws",
    "8.23.0",
    "c029265fc40c3ab2a380ef075b65b20db4d219eaa4a1cc600f34bd891efdac40"
    "1ec6dcbaff6ab38a5c77020f13a9ff72928a778ab2ca95ed0cb559f9aa3567a1",
)
NODE_CLIENT = Path(__file__).with_name("websocket_client.mjs")


class Seen(NamedTuple):
    """protocol: that the server chose. code: of the Close that the server replied with."""

    protocol: str | None
    compressed: bool
    echoed: bool
    pong: bool
    code: int | None


def _trusting(ca: Path | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=ca) if ca else None


def with_websockets(url: str, ca: Path | None, compression: bool) -> Seen:
    async def run() -> Seen:
        async with websockets.connect(
            url, origin=websockets.Origin(ORIGIN), subprotocols=[websockets.Subprotocol(name) for name in PROTOCOLS],
            compression="deflate" if compression else None, ssl=_trusting(ca), max_size=None,
        ) as client:  # fmt: skip
            sending = asyncio.create_task(client.send(SENT))
            received = b""
            while len(received) < SIZE:
                received += bytes(await client.recv(decode=False))
            await sending
            await (await client.ping(PING))
            await client.close(CODE, REASON)
            compressed = bool(client.protocol.extensions)
            return Seen(client.subprotocol, compressed, received == SENT, True, client.close_code)

    return asyncio.run(asyncio.wait_for(run(), DEADLINE))


class _Stream:
    """A socket, with TLS if the URL says so."""

    def __init__(self, url: str, ca: Path | None) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self.host, self.target = parts.netloc, parts.path
        self.socket = socket.create_connection((parts.hostname, parts.port or 80), DEADLINE)
        if context := _trusting(ca):
            self.socket = context.wrap_socket(self.socket, server_hostname=parts.hostname)


def with_wsproto(url: str, ca: Path | None, compression: bool) -> Seen:
    """By hand: wsproto has no socket."""
    stream = _Stream(url, ca)
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    deflate = PerMessageDeflate()

    def events() -> Iterator[wsproto.events.Event]:
        while data := stream.socket.recv(1 << 16):
            client.receive_data(data)
            yield from client.events()

    def send(event: wsproto.events.Event) -> None:
        stream.socket.sendall(client.send(event))

    with stream.socket:
        send(Request(
            host=stream.host, target=stream.target, subprotocols=PROTOCOLS, extensions=[deflate] if compression else [],
            extra_headers=[(b"Origin", ORIGIN.encode())],
        ))  # fmt: skip
        protocol, received, pong, code = None, b"", False, None
        for event in events():
            if isinstance(event, AcceptConnection):
                protocol = event.subprotocol
                for begin in range(0, SIZE, 1 << 16):  # one message, in fragments
                    piece = SENT[begin : begin + (1 << 16)]
                    send(BytesMessage(data=piece, message_finished=begin + len(piece) == SIZE))
            elif isinstance(event, BytesMessage):
                received += event.data
                if len(received) == SIZE:
                    send(Ping(payload=PING))
            elif isinstance(event, Pong):
                pong = event.payload == PING
                send(CloseConnection(code=CODE, reason=REASON))
            elif isinstance(event, CloseConnection):
                code = event.code
    return Seen(protocol, deflate.enabled(), received == SENT, pong, code)


def with_picows(url: str, ca: Path | None, compression: bool) -> Seen:
    """It has no compression."""

    class Listener(picows.WSListener):  # type: ignore[misc]
        def __init__(self) -> None:
            self.received, self.pong, self.code = b"", False, None

        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            transport.send(picows.WSMsgType.BINARY, SENT)

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.BINARY:
                self.received += frame.get_payload_as_bytes()
                if len(self.received) == SIZE:
                    transport.send_ping(PING)
            elif frame.msg_type == picows.WSMsgType.PONG:
                self.pong = frame.get_payload_as_bytes() == PING
                transport.send_close(CODE, REASON.encode())
            elif frame.msg_type == picows.WSMsgType.CLOSE:
                self.code = int(frame.get_close_code())
                transport.disconnect()

    async def run() -> Seen:
        headers = {"Origin": ORIGIN, "Sec-WebSocket-Protocol": ", ".join(PROTOCOLS)}
        transport, listener = await picows.ws_connect(Listener, url, ssl_context=_trusting(ca), extra_headers=headers)
        await transport.wait_disconnected()
        protocol = transport.response.headers.get("Sec-WebSocket-Protocol")
        return Seen(protocol, False, listener.received == SENT, listener.pong, listener.code)

    return asyncio.run(asyncio.wait_for(run(), DEADLINE))


def with_websocket_client(url: str, ca: Path | None, compression: bool) -> Seen:
    """It has no compression."""
    client = websocket.create_connection(
        url, DEADLINE, origin=ORIGIN, subprotocols=PROTOCOLS, sslopt={"ca_certs": str(ca)} if ca else None
    )
    try:
        # Python's SSLSocket is not made for a thread that sends and one that receives, so no piece is sent before the
        # echo of the one before has come.
        received = b""
        for begin in range(0, SIZE, PIECE):
            client.send_binary(SENT[begin : begin + PIECE])
            while len(received) < min(begin + PIECE, SIZE):
                received += client.recv()
        client.ping(PING)
        opcode, frame = client.recv_data_frame(control_frame=True)
        pong = opcode == websocket.ABNF.OPCODE_PONG and frame.data == PING
        client.send_close(CODE, REASON.encode())
        opcode, frame = client.recv_data_frame(control_frame=True)
        code = int.from_bytes(frame.data[:2], "big") if opcode == websocket.ABNF.OPCODE_CLOSE else None
        return Seen(client.getsubprotocol(), False, received == SENT, pong, code)
    finally:
        client.shutdown()


def with_node(url: str, ca: Path | None, compression: bool) -> Seen:
    """The package `ws`. It sends random bytes of its own."""
    asked = {"url": url, "ca": str(ca or ""), "compression": compression, "origin": ORIGIN, "protocols": PROTOCOLS}
    asked |= {"size": SIZE, "ping": PING.decode(), "code": CODE, "reason": REASON}
    done = subprocess.run(
        ["node", NODE_CLIENT, NODE_WS.fetch() / "wrapper.mjs", json.dumps(asked)],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Seen(**json.loads(done.stdout))


CLIENTS: dict[str, Callable[[str, Path | None, bool], Seen]] = {
    "websockets": with_websockets,
    "wsproto": with_wsproto,
    "picows": with_picows,
    "websocket-client": with_websocket_client,
    "node": with_node,
}
COMPRESSING = ("websockets", "wsproto", "node")
