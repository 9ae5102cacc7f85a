"""Sessions with TLS on a shared port."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from flashpol._fastpath import PROTOCOLS
from flashpol._pump import ENDS, FAILURES
from testkit.application import Application, receive
from testkit.serving import Serving
from testkit.tls import TlsClient, tls_connect


def relayed_as(server: Serving) -> dict[str, int]:
    """How many connections were relayed, by protocol."""
    counts = zip(PROTOCOLS, server.counters.all("relayed"), strict=True)
    return {protocol: count for protocol, count in counts if count}


def ends(server: Serving) -> dict[str, int]:
    """How sessions ended, and why attempts to connect failed."""
    block = server.relayed[0]
    counts = zip((*ENDS, *FAILURES), (*block.all("ends"), *block.all("failures")), strict=True)
    return {name: count for name, count in counts if count}


@contextmanager
def session(server: Serving, app: Application, context: ssl.SSLContext) -> Iterator[tuple[TlsClient, socket.socket]]:
    """A client and its connection at the application; a word was exchanged each way."""
    with tls_connect(server.address, context) as client:
        client.send(b"ping")
        with app.accept() as inner:
            assert receive(inner, 4) == b"ping"
            inner.sendall(b"pong")
            assert client.receive(4) == b"pong"
            yield client, inner
