"""stunnel as a client: plain programs reach a TLS port through it, as players' or media tools do."""

import hashlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testkit.client_fixtures import Echo
from testkit.client_site import POLICY, ClientSite
from testkit.clients import ask, connect, reset, rest
from testkit.polling import eventually
from testkit.processes import Flashpol, Place, free_port
from testkit.programs import find, needs, running, wait_for

pytestmark = [pytest.mark.slow, needs("stunnel")]


@contextmanager
def stunnel(site: ClientSite, server: Flashpol, *settings: str) -> Iterator[Place]:
    """Where plain clients connect."""
    place = ("127.0.0.1", free_port())
    lines = (
        "foreground = yes", "pid =", "[games]", "client = yes", f"accept = 127.0.0.1:{place[1]}",
        f"connect = 127.0.0.1:{server.place[1]}", f"CAfile = {site.ca.root}", "verifyChain = yes",
        "checkHost = localhost", "sni = localhost", *settings,
    )  # fmt: skip
    path = site.folder / "stunnel.conf"
    path.write_text("\n".join(lines) + "\n")
    with running(find("stunnel"), path, log=site.folder / "stunnel.log"):
        wait_for(place, "stunnel")  # which makes a connection to the server, too
        yield place


def bulk(size: int) -> bytes:
    return random.Random(17).randbytes(size)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_policy_and_echo_through_stunnel(site: ClientSite, echo: Echo, version: str) -> None:
    data = bulk(4 << 20)
    with (
        site.serve(upstream=echo.address) as server,
        stunnel(site, server, f"sslVersionMin = {version}", f"sslVersionMax = {version}") as place,
    ):
        assert ask(place) == POLICY + b"\0"
        with connect(place) as client:
            writer = threading.Thread(target=send_and_finish, args=(client, data))
            writer.start()
            received = rest(client)
            writer.join()
        assert received.endswith(b"bye"), "sent after the FIN of the client, which stunnel passes on as close_notify"
        assert hashlib.sha256(received[:-3]).digest() == hashlib.sha256(data).digest()
        server.counts(0, "tls_truncated_total")
        assert server.metrics().total("tls_handshakes_total", version=version) >= 2


def send_and_finish(client: socket.socket, data: bytes) -> None:
    client.sendall(data)
    client.shutdown(socket.SHUT_WR)


def test_application_that_speaks_first_through_stunnel(site: ClientSite) -> None:
    """A client that waits for a greeting is relayed after first_byte_timeout, which begins after the handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstream = f"127.0.0.1:{listening.getsockname()[1]}"
        with site.serve(upstream=upstream, first_byte_timeout=0.2) as server, stunnel(site, server) as place:
            with connect(place) as client:
                inner = accept_lasting(listening)
                inner.sendall(b"220 welcome\r\n")
                assert client.recv(100) == b"220 welcome\r\n"
                inner.close()
                assert client.recv(1) == b""
            eventually(lambda: server.metrics().total("relayed_total", protocol="silent") >= 1, "the count")


def accept_lasting(listening: socket.socket) -> socket.socket:
    """The connection that is not the one with which the test waited for stunnel."""
    listening.settimeout(20)
    while True:
        inner, _ = listening.accept()
        inner.settimeout(0.5)
        try:
            if inner.recv(1) == b"":
                inner.close()
                continue
        except TimeoutError:
            inner.settimeout(20)
        except ConnectionResetError:
            inner.close()
            continue
        return inner


def test_reset_by_the_plain_client_ends_the_session(site: ClientSite, echo: Echo) -> None:
    with site.serve(upstream=echo.address) as server, stunnel(site, server) as place:
        with connect(place, b"hello") as client:
            assert client.recv(5) == b"hello"
            reset(client)
        eventually(lambda: server.metrics().total("sessions") == 0, "the end of the session")
        eventually(lambda: echo.ends, "the end at the application")


def test_clients_of_the_flash_profile_through_an_old_stunnel(site: ClientSite, echo: Echo) -> None:
    old = ("sslVersion = TLSv1", "ciphers = AES128-SHA:@SECLEVEL=0", "securityLevel = 0")
    with site.serve(tls_profile="flash", upstream=echo.address) as server, stunnel(site, server, *old) as place:
        assert ask(place) == POLICY + b"\0"
        with connect(place, b"hello") as client:
            assert client.recv(5) == b"hello"
        assert server.metrics().total("tls_handshakes_total", version="TLSv1") >= 2
