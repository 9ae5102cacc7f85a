"""The application behind a shared port, as tests need it: it listens, and returns its connections one by one."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from flashpol.config import UpstreamAddress
from testkit.polling import DEADLINE


class Application:
    def __init__(self, listening: socket.socket, remote: UpstreamAddress) -> None:
        self.listening = listening
        self.remote = remote

    def accept(self) -> socket.socket:
        connection, _ = self.listening.accept()
        connection.settimeout(DEADLINE)
        return connection

    def has_no_connection(self) -> bool:
        """Whether none waits to be accepted."""
        self.listening.setblocking(False)
        try:
            self.listening.accept()[0].close()
        except BlockingIOError:
            return True
        finally:
            self.listening.settimeout(DEADLINE)
        return False


@contextmanager
def application(host: str = "127.0.0.1", backlog: int = 4096) -> Iterator[Application]:
    with socket.create_server((host, 0), backlog=backlog) as listening:
        listening.settimeout(DEADLINE)
        yield Application(listening, UpstreamAddress(*listening.getsockname()[:2]))


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, or fewer if the stream ends before."""
    received = b""
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return received
