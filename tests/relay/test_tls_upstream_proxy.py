"""The PROXY header to an application behind TLS, with and without what TLS adds, read by another project's parser."""

import dataclasses
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")
pytest.importorskip("proxyprotocol", reason="needs proxy-protocol")

from proxyprotocol.tlv import ProxyProtocolSSLTLV, SSLClient
from proxyprotocol.v2 import ProxyProtocolV2

from testkit.application import Application, application, receive
from testkit.serving import TIMEOUTS
from testkit.tls import only, tls_connect
from testkit.tls_serving import Tls, issue
from testkit.tls_site import TlsSite

pytestmark = pytest.mark.slow

QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.3)
SSL_VERSION, SSL_CN, SSL_CIPHER, SSL_SIG_ALG, SSL_KEY_ALG = range(0x21, 0x26)
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture
def app(no_leaked_files: None) -> Iterator[Application]:
    with application() as one:
        yield one


def read_header(inner: socket.socket):  # type: ignore[no-untyped-def]
    """The header that comes first, parsed, and how long it is."""
    start = receive(inner, 16)
    header = ProxyProtocolV2().unpack_header(start)
    found = ProxyProtocolV2().unpack_data(header, start, receive(inner, header.data_len))
    return found, header.data_len


@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
@pytest.mark.parametrize("name", ["games.test", None])
def test_v2_header_with_tls_has_version_suite_and_name(  # type: ignore[no-untyped-def]
    app: Application, serve: Serve, version, name: str | None
) -> None:
    server = serve(
        timeouts=QUICK,
        tls=Tls((issue("games.test"),)),
        upstream=[app.remote],
        upstream_proxy="v2",
        upstream_proxy_tls=True,
    )
    with tls_connect(server.address, only(version, alpn=["http/1.1"]), name=name) as client:
        client.send(b"hello")
        with app.accept() as inner:
            found, _ = read_header(inner)
            assert receive(inner, 5) == b"hello"
            assert (str(found.source[0]), found.source[1]) == client.sock.getsockname()
            assert (str(found.dest[0]), found.dest[1]) == server.address
            assert found.tlv.authority == name
            inside = found.tlv.ssl
            assert isinstance(inside, ProxyProtocolSSLTLV)
            assert inside.client == SSLClient.PP2_CLIENT_SSL  # no certificate of the client's
            assert inside.verify != 0  # so none was verified
            suite = client.tls.cipher()
            assert suite
            assert inside[SSL_VERSION] == version.name.replace("_", ".").encode()
            assert inside[SSL_CIPHER] == suite[0].encode()
            for number, value in inside.items():
                assert value.isascii(), number
    assert server.settle() == {"relayed": 1}


def test_v2_header_with_an_alpn_has_it_if_at_all_as_chosen(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote], upstream_proxy="v2", upstream_proxy_tls=True)
    with tls_connect(server.address, only(V13, alpn=["h2", "http/1.1"])) as client:
        client.send(b"hello")
        with app.accept() as inner:
            found, _ = read_header(inner)
            assert found.tlv.alpn in (None, b"http/1.1")
    server.settle()


def test_v2_header_of_a_plain_connection_has_no_tls(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote], upstream_proxy="v2", upstream_proxy_tls=True)
    with server.connect() as client:
        client.sendall(b"hello")
        with app.accept() as inner:
            found, size = read_header(inner)
            assert found.tlv.ssl in (None, ProxyProtocolSSLTLV()) or found.tlv.ssl.client == 0
            assert found.tlv.authority is None
            assert size == 12
            assert receive(inner, 5) == b"hello"
    server.settle()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_header_without_upstream_proxy_tls_is_as_for_plain_text(app: Application, serve: Serve, version: str) -> None:
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote], upstream_proxy=version)
    with tls_connect(server.address, name="games.test") as client:
        client.send(b"hello")
        with app.accept() as inner:
            host, port = client.sock.getsockname()
            if version == "v1":
                expected = f"PROXY TCP4 {host} 127.0.0.1 {port} {server.address[1]}\r\n".encode()
                assert receive(inner, len(expected)) == expected
            else:
                found, size = read_header(inner)
                assert size == 12
                assert (str(found.source[0]), found.source[1]) == (host, port)
            assert receive(inner, 5) == b"hello"
    server.settle()


def test_header_of_a_silent_client_inside_tls_comes_first(app: Application, serve: Serve) -> None:
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote], upstream_proxy="v2", upstream_proxy_tls=True)
    with tls_connect(server.address, name="first.test") as client, app.accept() as inner:
        found, _ = read_header(inner)
        assert found.tlv.authority == "first.test"
        inner.sendall(b"220 welcome")
        assert client.receive(11) == b"220 welcome"
    server.settle()


def test_longest_name_fits_into_the_header(app: Application, serve: Serve) -> None:
    name = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(name) == 253
    server = serve(timeouts=QUICK, tls=Tls(), upstream=[app.remote], upstream_proxy="v2", upstream_proxy_tls=True)
    with tls_connect(server.address, name=name) as client:
        client.send(b"hello")
        with app.accept() as inner:
            found, _ = read_header(inner)
            assert found.tlv.authority == name
            assert receive(inner, 5) == b"hello"
    server.settle()
    assert server.counters["unknown_names"] == 1


def test_header_of_a_client_behind_a_proxy_has_its_address_and_the_tls_that_ended_here(
    tmp_path: Path, app: Application
) -> None:
    site = TlsSite(tmp_path, app.remote)
    behind = 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]'
    site.configure(listener=f'{behind}\nupstream_proxy = "v2"\nupstream_proxy_tls = true')
    first = b"PROXY TCP6 2001:db8::7 2001:db8::1 50000 7000\r\n"
    with site.serve() as server, tls_connect(server.place, name="games.test", first=first) as client:
        client.send(b"hello")
        with app.accept() as inner:
            found, _ = read_header(inner)
            assert receive(inner, 5) == b"hello"
            assert (str(found.source[0]), found.source[1]) == ("2001:db8::7", 50000)
            assert (str(found.dest[0]), found.dest[1]) == ("2001:db8::1", 7000)
            assert found.tlv.authority == "games.test"
            assert found.tlv.ssl.client == SSLClient.PP2_CLIENT_SSL
