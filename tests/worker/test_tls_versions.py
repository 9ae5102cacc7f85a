"""What client and server agree on, by the profile of the listener: version, suite, ALPN, resumption."""

import ssl
from contextlib import suppress

import pytest
from conftest import Serve

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from testkit.clients import REQUEST
from testkit.serving import REPLY
from testkit.tls import (
    AIR_CIPHERS,
    ANY,
    WHOLE,
    answer,
    hello,
    only,
    refusal,
    ssl2_hello,
    tls_ask,
    tls_connect,
)
from testkit.tls_serving import Tls, handshakes, issue

pytestmark = pytest.mark.slow

V10, V11, V12, V13 = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


# -------------------------------------------------------------------------------------------------- versions and suites


@pytest.mark.parametrize(
    ("profile", "taken"),
    [("modern", [V12, V13]), ("compatible", [V12, V13]), ("flash", [V10, V11, V12, V13])],
)
@pytest.mark.parametrize("version", [V10, V11, V12, V13], ids=lambda version: version.name)
def test_version_is_taken_or_refused_by_the_profile(  # type: ignore[no-untyped-def]
    serve: Serve, profile: str, taken, version
) -> None:
    server = serve(tls=Tls((issue("first.test", key="rsa"),), profile))
    if version in taken:
        assert tls_ask(server.address, REQUEST, only(version)) == (REPLY, WHOLE)
        assert server.settle() == {"reply": 1}
        assert handshakes(server.counters) == {version.name.replace("_", ".").replace("TLSv1.0", "TLSv1"): 1}
    else:
        assert refusal(server.address, only(version)) == "protocol_version"
        assert server.settle() == {"tls_handshake": 1}
        assert handshakes(server.counters) == {"version": 1}


SUITES = {  # suite -> the profiles that take it
    "ECDHE-RSA-AES128-GCM-SHA256": ("modern", "compatible", "flash"),
    "ECDHE-RSA-CHACHA20-POLY1305": ("modern", "compatible", "flash"),
    "ECDHE-RSA-AES128-SHA": ("compatible", "flash"),
    "ECDHE-RSA-AES256-SHA384": ("compatible", "flash"),
    "AES128-GCM-SHA256": ("flash",),
    "AES128-SHA": ("flash",),
    "AES256-SHA": ("flash",),
    "NULL-SHA256": (),
    "AECDH-AES128-SHA": (),
    "ADH-AES128-SHA": (),
}


@pytest.mark.parametrize("profile", ["modern", "compatible", "flash"])
@pytest.mark.parametrize("suite", SUITES)
def test_suite_of_tls_1_2_is_taken_or_refused_by_the_profile(serve: Serve, profile: str, suite: str) -> None:
    server = serve(tls=Tls((issue("first.test", key="rsa"),), profile))
    context = only(V12, ciphers=f"{suite}:@SECLEVEL=0")
    if profile in SUITES[suite]:
        with tls_connect(server.address, context) as client:
            found = client.tls.cipher()
            assert found
            assert found[0] == suite
        server.settle()
    else:
        assert refusal(server.address, context) == "handshake_failure"
        assert server.settle() == {"tls_handshake": 1}
        found = handshakes(server.counters)
        assert found in ({"cipher": 1}, {"old_client": 1})


def test_client_with_cbc_alone_is_counted_as_an_old_client(serve: Serve) -> None:
    """As AIR is. It differs from a client with nothing in common, since there is something to do for it."""
    pair = issue("first.test", key="rsa")
    server = serve(tls=Tls((pair,)))
    assert refusal(server.address, only(V12, ciphers=AIR_CIPHERS)) == "handshake_failure"
    assert handshakes(server.counters) == {"old_client": 1}
    assert answer(server.address, hello(suites=[0x1301, 0xC09C]))[0] == [
        (2, "handshake_failure")
    ]  # TLS 1.3 alone, and CCM
    assert handshakes(server.counters) == {"old_client": 1, "cipher": 1}
    assert server.settle() == {"tls_handshake": 2}
    flash = serve(tls=Tls((pair,), "flash"))
    assert tls_ask(flash.address, REQUEST, only(V12, ciphers=AIR_CIPHERS)) == (REPLY, WHOLE)
    assert flash.settle() == {"reply": 1}


@pytest.mark.parametrize("profile", ["modern", "compatible", "flash"])
def test_ssl_3_hello_is_refused_with_an_alert(serve: Serve, profile: str) -> None:
    """SSL 3.0 has no alert protocol_version; OpenSSL sends handshake_failure to such a client."""
    server = serve(tls=Tls(profile=profile))
    alerts, how = answer(server.address, hello(version=0x0300, record_version=0x0300))
    assert alerts in ([(2, "protocol_version")], [(2, "handshake_failure")])
    assert how == "fin"
    assert server.settle() == {"tls_handshake": 1}
    assert handshakes(server.counters) == {"version": 1}


def test_ssl_2_hello_is_no_tls(serve: Serve) -> None:
    """It begins like no record of TLS, and like many other protocols."""
    server = serve(tls=Tls())
    assert answer(server.address, ssl2_hello()) == ([], "fin")
    assert server.settle() == {"other": 1}


def test_version_of_the_future_gets_the_newest_that_the_server_has(serve: Serve) -> None:
    server = serve(tls=Tls())
    with server.connect() as client:
        client.sendall(hello(version=0x03FF))
        assert client.recv(3) == b"\x16\x03\x03"
    server.settle()


# ----------------------------------------------------------------------------------------------------------------- ALPN


@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["http/1.1"], "http/1.1"),
        (["h2", "http/1.1"], "http/1.1"),
        (["http/1.0", "spdy/3", "http/1.1", "h2"], "http/1.1"),
        ([], None),
    ],
)
def test_alpn_with_http_1_1_among_the_offers_chooses_it(  # type: ignore[no-untyped-def]
    serve: Serve, version, offered: list[str], chosen: str | None
) -> None:
    server = serve(tls=Tls())
    with tls_connect(server.address, only(version, alpn=offered)) as client:
        assert client.tls.selected_alpn_protocol() == chosen
        client.send(REQUEST)
        assert client.until_end() == (REPLY, WHOLE)
    assert server.settle() == {"reply": 1}


@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
@pytest.mark.parametrize("offered", [["h2"], ["http/1.0"], ["http/1.1x"], ["rtmp", "h2"]])
def test_alpn_with_only_other_offers_is_refused(serve: Serve, version, offered: list[str]) -> None:  # type: ignore[no-untyped-def]
    server = serve(tls=Tls())
    assert refusal(server.address, only(version, alpn=offered)) == "no_application_protocol"
    assert server.settle() == {"tls_handshake": 1}
    assert handshakes(server.counters) == {"alpn": 1}


# ----------------------------------------------------------------------------------------------------------- resumption


@pytest.mark.parametrize("version", [V12, V13], ids=lambda version: version.name)
@pytest.mark.parametrize("tickets", [0, 2])
def test_session_is_resumed_only_with_tickets(serve: Serve, version, tickets: int) -> None:  # type: ignore[no-untyped-def]
    server = serve(tls=Tls(tickets=tickets))
    context = only(version)
    with tls_connect(server.address, context) as client:
        client.send(REQUEST)
        assert client.until_end() == (REPLY, WHOLE)
        session = client.tls.session
    with tls_connect(server.address, context, session=session if tickets else None) as client:
        client.send(REQUEST)
        assert client.until_end() == (REPLY, WHOLE)
        assert client.tls.session_reused is bool(tickets)
    assert server.settle() == {"reply": 2}
    assert server.counters["resumed"] == (1 if tickets else 0)


def test_client_without_a_ticket_gets_none(serve: Serve) -> None:
    """rtmpdump breaks off at a ticket of TLS 1.3."""
    server = serve(tls=Tls())
    with tls_connect(server.address, only(V13)) as client:
        client.sock.settimeout(0.3)
        with suppress(TimeoutError):
            assert client.sock.recv(1 << 16) == b"", "something after the handshake"
    server.settle()
    assert not ANY.session_stats()["hits"]
