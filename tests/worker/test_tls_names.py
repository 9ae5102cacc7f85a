"""Which certificate a client gets: by the name that it asks for, and by what it can."""

import ssl

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.clients import REQUEST, until_end
from testkit.serving import REPLY
from testkit.tls import (
    ALERT,
    WHOLE,
    Refused,
    TlsClient,
    answer,
    client_context,
    hello,
    only,
    records,
    tls_ask,
    tls_connect,
)
from testkit.tls_serving import Tls, handshakes, issue, leaf

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
FIRST, EXACT, WILD = issue("first.test"), issue("games.test", "www.games.test"), issue("*.wild.test")
RSA, ECDSA = issue("dual.test", key="rsa"), issue("dual.test")
NAMED = Tls((FIRST, EXACT, WILD))


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("games.test", EXACT),
        ("www.games.test", EXACT),
        ("GAMES.test", EXACT),
        ("a.wild.test", WILD),
        ("A.Wild.TEST", WILD),
        ("first.test", FIRST),
        ("games.test.", EXACT),
        (None, FIRST),
    ],
)
@pytest.mark.parametrize("version", [V12, V13])
def test_known_name_or_none_gets_its_certificate(serve: Serve, name: str | None, pair, version) -> None:  # type: ignore[no-untyped-def]
    server = serve(tls=NAMED)
    with tls_connect(server.address, only(version), name=name) as client:
        assert client.certificate == leaf(pair)
        client.send(REQUEST)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}
    assert server.counters["unknown_names"] == 0


# A wildcard stands for one level; it has one, also where the name ends as the certificate's does.
UNKNOWN = [
    "other.test",
    "wild.test",
    "a.b.wild.test",
    ".wild.test",
    "awild.test",
    "x" * 63 + ".games.test",
]


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_name_gets_the_first_certificate_and_is_counted(serve: Serve, name: str) -> None:
    server = serve(tls=NAMED)
    with server.connect() as sock:
        sock.sendall(hello(name=name))
        wire = bytearray()
        while leaf(FIRST) not in wire and (data := sock.recv(1 << 16)):
            wire += data
        assert leaf(FIRST) in wire
    assert server.settle() == {"reset": 1}
    assert server.counters["unknown_names"] == 1


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_name_with_strict_sni_gets_unrecognized_name(serve: Serve, name: str) -> None:
    server = serve(tls=Tls((FIRST, EXACT, WILD), strict_sni=True))
    assert answer(server.address, hello(name=name)) == ([(2, "unrecognized_name")], "fin")
    assert server.settle() == {"tls_handshake": 1}
    assert handshakes(server.counters) == {"name": 1}


@pytest.mark.parametrize("name", ["127.0.0.1", "::1", "2001:db8::1"])
def test_address_as_a_name_gets_the_first_certificate(serve: Serve, name: str) -> None:
    """A client that connects to an address names none; some name it against RFC 6066."""
    server = serve(tls=NAMED)
    with server.connect() as sock:
        sock.sendall(hello(name=name))
        wire = bytearray()
        while leaf(FIRST) not in wire and (data := sock.recv(1 << 16)):
            wire += data
        assert leaf(FIRST) in wire
    assert server.settle() == {"reset": 1}


def test_no_name_with_strict_sni_gets_the_first_certificate(serve: Serve) -> None:
    """Without a name there is none that is unknown."""
    server = serve(tls=Tls((FIRST, EXACT), strict_sni=True))
    assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)
    assert tls_ask(server.address, REQUEST, name="games.test") == (REPLY, WHOLE)
    assert server.settle() == {"reply": 2}


@pytest.mark.parametrize("name", ["a" * 255, "\0", "games.test\0", "é.test", " games.test", "-"])
def test_odd_name_is_no_name_of_a_certificate(serve: Serve, name: str) -> None:
    """It is refused, or gets the first certificate: never another one, and the server goes on."""
    server = serve(tls=NAMED)
    with server.connect() as sock:
        sock.sendall(hello(name=name))
        wire = bytearray()
        sock.settimeout(20)
        while leaf(FIRST) not in wire and not plain_end(wire) and (data := sock.recv(1 << 16)):
            wire += data
        for pair in (EXACT, WILD):
            assert leaf(pair) not in wire
    server.settle()
    assert tls_ask(server.address, REQUEST) == (REPLY, WHOLE)


def plain_end(wire: bytes | bytearray) -> bool:
    return any(kind == ALERT for kind, _ in records(bytes(wire)))


@pytest.mark.parametrize("pairs", [(RSA, ECDSA), (ECDSA, RSA)], ids=["RSA first", "ECDSA first"])
@pytest.mark.parametrize("name", ["dual.test", None])
@pytest.mark.parametrize(
    ("ciphers", "pair"),
    [("ECDHE-RSA-AES128-GCM-SHA256", RSA), ("ECDHE-ECDSA-AES128-GCM-SHA256", ECDSA)],
    ids=["RSA client", "ECDSA client"],
)
def test_ecdsa_and_rsa_beside_each_other_are_chosen_by_what_the_client_can(  # type: ignore[no-untyped-def]
    serve: Serve, pairs, name: str | None, ciphers: str, pair
) -> None:
    server = serve(tls=Tls(pairs))
    with tls_connect(server.address, only(V12, ciphers=ciphers), name=name) as client:
        assert client.certificate == leaf(pair)
    assert server.settle() == {"reset": 1}


def test_ecdsa_beside_rsa_is_preferred_for_a_client_that_can_both(serve: Serve) -> None:
    server = serve(tls=Tls((RSA, ECDSA)))
    for version in (V12, V13):
        with tls_connect(server.address, only(version), name="dual.test") as client:
            assert client.certificate == leaf(ECDSA)
    server.settle()


@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
def test_client_that_refuses_the_certificate_is_counted(serve: Serve, version) -> None:  # type: ignore[no-untyped-def]
    """Its alert arrives: within the handshake in TLS 1.2, in TLS 1.3 as well."""
    server = serve(tls=Tls())
    context = client_context(minimum=version, maximum=version, authority=issue("elsewhere.test").chain)
    with server.connect() as sock:
        client = TlsClient(sock, context, name="first.test")
        with pytest.raises(Refused):
            client.handshake()
        client.flush()  # the alert
        assert until_end(sock)[1] == "fin"
    assert server.settle() == {"tls_handshake": 1}
    assert handshakes(server.counters) == {"certificate": 1}
