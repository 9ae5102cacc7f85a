"""The end of a TLS 1.3 handshake is acknowledged at once: nothing that is sent then could carry the acknowledgement."""

import socket
import ssl

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.clients import REQUEST, delivered
from testkit.polling import DEADLINE, eventually
from testkit.serving import REPLY
from testkit.tls import only
from testkit.tls_serving import Tls, handshakes


def test_end_of_a_handshake_is_acknowledged_before_the_request(serve: Serve) -> None:
    """Else a client with Nagle's algorithm, which most have, keeps its request for 40 ms."""
    server = serve(tls=Tls())
    with socket.create_connection(server.address, DEADLINE) as plain:
        client = only(ssl.TLSVersion.TLSv1_3).wrap_socket(plain, server_hostname="first.test")
        eventually(lambda: handshakes(server.counters) == {"TLSv1.3": 1}, "the handshake")
        assert delivered(client)
        client.sendall(REQUEST)
        assert b"".join(iter(lambda: client.recv(4096), b"")) == REPLY
        client.close()
