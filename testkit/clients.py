"""Clients over plain sockets: connect, send, read to the end, reset."""

import fcntl
import socket
import struct
import termios

from testkit.polling import DEADLINE, eventually

REQUEST = b"<policy-file-request/>\0"
BARE = REQUEST[:-1]


def connect(address: tuple[str, int], data: bytes = b"", *, receive_buffer: int = 0, source: str = "") -> socket.socket:
    """A connected socket that has sent `data`. receive_buffer: SO_RCVBUF, in bytes. source: the client's IP."""
    client = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        client.settimeout(DEADLINE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            client.bind((source, 0))
        client.connect(tuple(address))
        client.sendall(data)
    except BaseException:
        client.close()
        raise
    return client


def delivered(client: socket.socket) -> bool:
    """Everything sent has been acknowledged: it is in the other end's receive queue, or was read from it."""
    return fcntl.ioctl(client, termios.TIOCOUTQ, bytes(4)) == bytes(4)


def deliver(client: socket.socket, data: bytes) -> None:
    """Send, and wait until it is delivered: the server then has it in a segment of its own."""
    client.sendall(data)
    eventually(lambda: delivered(client), "acknowledgement")


def until_end(client: socket.socket) -> tuple[bytes, str]:
    """What the client receives until the stream ends, and how it ends: "fin" or "rst"."""
    received = bytearray()
    try:
        while data := client.recv(1 << 16):
            received += data
    except (ConnectionResetError, BrokenPipeError):  # the latter when the reset came after the FIN
        return bytes(received), "rst"
    return bytes(received), "fin"


def rest(connection: socket.socket) -> bytes:
    """What comes until the server closes; closes too. Raises ConnectionResetError."""
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def ask(address: tuple[str, int], request: bytes = REQUEST) -> bytes:
    """The reply to one request, up to the server's FIN."""
    return rest(connect(address, request))
