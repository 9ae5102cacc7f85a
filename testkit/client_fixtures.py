"""Fixtures of tests/clients: a site with certificates of an own CA, and an application that its clients talk to."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.client_site import ClientSite
from testkit.own_ca import OwnCa
from testkit.polling import DEADLINE


@pytest.fixture(scope="session")
def issued(tmp_path_factory: pytest.TempPathFactory) -> ClientSite:
    """Made once: a CA takes a second."""
    pytest.importorskip("flashpol._tls")
    folder = tmp_path_factory.mktemp("ca")
    return ClientSite(folder, OwnCa(folder))


@pytest.fixture
def site(issued: ClientSite, tmp_path: Path) -> ClientSite:
    return ClientSite(tmp_path, issued.ca, issued.certificates)


class Echo:
    """Sends back what it receives, in threads. When a client has sent FIN, it gets `bye` and FIN."""

    def __init__(self, port: int = 0) -> None:
        self.listening = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self.listening.getsockname()[1]}"
        self.ends: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            client.settimeout(DEADLINE)
            try:
                while data := client.recv(1 << 16):
                    client.sendall(data)
                client.sendall(b"bye")
                self.ends.append("fin")
            except OSError as error:
                self.ends.append(type(error).__name__)


@pytest.fixture
def echo() -> Iterator[Echo]:
    application = Echo()
    yield application
    application.close()
