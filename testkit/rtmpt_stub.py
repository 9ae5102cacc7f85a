"""A small RTMPT server for tests of balancers: each session gets back what its client sends.

It is what flashpol with an echo application behind it is to a balancer: ids begin with the letter of the host, numbers
are carried out in order and once, a repeated one gets the same reply, unknown ids get 404. It also takes WebSocket
upgrades (echo of the bytes), GET of /crossdomain.xml, and on a second port anything behind a PROXY header of version 2.

    python -m testkit.rtmpt_stub LETTER ADDRESS HTTP_PORT RAW_PORT ADMIN_PORT
"""

import base64
import hashlib
import http.server
import random
import re
import socket
import socketserver
import string
import struct
import sys
import threading
from contextlib import suppress
from io import BufferedIOBase

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
HOLD, GAP = 0.5, 2.0  # seconds, as flashpol's rtmpt_hold and rtmpt_gap
INTERVAL = b"\1"
POLICY = b'<cross-domain-policy><allow-access-from domain="*" to-ports="*"/></cross-domain-policy>'


class Session:
    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.expected: int | None = None
        self.waiting = b""
        self.last = INTERVAL  # the reply to the number before the expected one

    def carry_out(self, kind: str, number: int, body: bytes) -> bytes:
        with self.changed:
            if self.expected is None:
                self.expected = number
            self.changed.wait_for(lambda: number <= (self.expected or 0), GAP)
            if number < self.expected:
                return self.last if number == self.expected - 1 else INTERVAL
            self.expected = number + 1
            if kind == "send":
                self.waiting += body
            self.changed.notify_all()
            if kind == "idle":
                self.changed.wait_for(lambda: self.waiting or self.expected != number + 1, HOLD)
            data, self.waiting = self.waiting, b""
            if number == self.expected - 1:
                self.last = INTERVAL + data
            return INTERVAL + data


class Host:
    """What the three servers of a stub share."""

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.sessions: dict[str, Session] = {}
        self.clients: list[str] = []  # of all sessions, as X-Forwarded-For says

    def reply(self, method: str, path: str, client: str, body: bytes) -> tuple[int, bytes]:
        if method == "GET" and path == "/crossdomain.xml":
            return 200, POLICY
        match path.split("/")[1:]:
            case ["open", "1"]:
                identifier = self.letter + "".join(random.choices(ALPHABET, k=15))
                self.sessions[identifier] = Session()
                self.clients.append(client)
                return 200, identifier.encode() + b"\n"
            case ["send" | "idle" as kind, identifier, number] if session := self.sessions.get(identifier):
                return 200, session.carry_out(kind, int(number), body)
            case ["close", identifier, *_] if self.sessions.pop(identifier, None):
                return 200, b"\0"
        return 404, b""


class Http(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        with suppress(ConnectionError):
            while line := self.rfile.readline():
                if not self.request_of(line):
                    return

    def request_of(self, line: bytes) -> bool:
        """Whether the connection goes on."""
        method, target, _ = line.decode().split()
        fields: dict[str, list[str]] = {}
        while (field := self.rfile.readline().decode().rstrip("\r\n")) != "":
            name, _, value = field.partition(":")
            fields.setdefault(name.lower(), []).append(value.strip())
        body = self.rfile.read(int(fields.get("content-length", ["0"])[0]))
        if "upgrade" in fields:
            accept = accept_value(fields["sec-websocket-key"][0])
            head = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            self.wfile.write(f"HTTP/1.1 101 Switching Protocols\r\n{head}".encode())
            echo(self.rfile, self.wfile)
            return False
        path = re.sub("^http://[^/]*", "", target)
        client = ",".join(fields.get("x-forwarded-for", [self.client_address[0]])).rpartition(",")[2].strip()
        status, data = self.server.host.reply(method, path, client, body)  # type: ignore[attr-defined]
        head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not Found'}\r\nContent-Type: application/x-fcs\r\n"
        head += f"Content-Length: {len(data)}\r\nCache-Control: no-cache\r\nConnection: Keep-Alive\r\n\r\n"
        self.wfile.write(head.encode() + data)
        return "close" not in fields.get("connection", [""])[0].lower()


class Raw(socketserver.StreamRequestHandler):
    """Replies to everything with the client's address of the PROXY header, then echoes."""

    def handle(self) -> None:
        with suppress(ConnectionError):
            signature = self.rfile.peek(1)[:1]  # type: ignore[attr-defined]
            if signature == b"\r":
                head = self.rfile.read(16)
                addresses = self.rfile.read(struct.unpack("!H", head[14:])[0])
                self.wfile.write(socket.inet_ntoa(addresses[:4]).encode() + b"\n")
            else:  # version 1
                self.wfile.write(self.rfile.readline().split()[2] + b"\n")
            echo(self.rfile, self.wfile)


def accept_value(key: str) -> str:
    """HAProxy checks it (RFC 6455, section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()


def echo(source: BufferedIOBase, target: BufferedIOBase) -> None:
    while data := source.read1(1 << 16):
        target.write(data)


class Admin(http.server.BaseHTTPRequestHandler):
    """`/-/ready`; the clients of the sessions, a line each, at every other path."""

    def do_GET(self) -> None:
        clients = self.server.host.clients  # type: ignore[attr-defined]
        data = b"" if self.path == "/-/ready" else "".join(f"{client}\n" for client in clients).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128


def main(letter: str, address: str, *ports: str) -> None:
    host = Host(letter)
    for handler, port in zip((Http, Raw, Admin), ports, strict=True):
        server = Server((address, int(port)), handler)
        server.host = host  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
