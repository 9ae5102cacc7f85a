"""Addresses to bind, and names of systemd sockets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.config import Address, ConfigError, SystemdSocket, parse_endpoint


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8430", "127.0.0.1", 8430),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::]:843", "::", 843),
        ("[::1]:65535", "::1", 65535),
        ("[2001:DB8:0:0::1]:00843", "2001:db8::1", 843),
        ("[fe80::1%lo]:80", "fe80::1%lo", 80),
        ("[FE80:0::1%eth0.12]:80", "fe80::1%eth0.12", 80),
        ("[fe80::1%2]:80", "fe80::1%2", 80),
    ],
)
def test_address_of_valid_text_round_trips(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "843", ":843", "127.0.0.1", "localhost:843", "example.com:843", "127.0.0.1:", "127.0.0.1:-1",
        "127.0.0.1:65536", "127.0.0.1:999999", "127.0.0.1:8x", "127.0.0.1: 80", "127.0.0.1:80\n", "127.0.0.1:٣",
        "127.0.0.256:80", "127.1:80", "[127.0.0.1]:80", "::1:80", "[::1]", "[::1]80", "[::1:80", "::1]:80", "[]:80",
        "[::g]:80", "*:80", "127.0.0.1:0x50",
        "[fe80::1]:80", "[febf::1]:80", "[fe80::1%]:80", "[fe80::1%a b]:80", "[fe80::1%a/b]:80",
        "[fe80::1%sixteencharacter]:80",
        "[::1%lo]:80", "[2001:db8::1%eth0]:80", "[::%eth0]:80", "127.0.0.1%lo:80", "[fe80::1%a%b]:80",
    ],
)  # fmt: skip
def test_address_of_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    assert "write " in message
    assert "\n" not in message


@given(st.text() | st.text("0123456789.:[]%af"))
def test_address_of_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        address, message = Address.parse(text), ""
    except ConfigError as error:
        address, message = None, str(error)
    if address:
        assert Address.parse(str(address)) == address
    else:
        assert "write " in message


@pytest.mark.parametrize("name", ["policy", "flashpol.socket", "a b", "~", "x" * 255])
def test_systemd_socket_of_valid_text_round_trips(name: str) -> None:
    assert parse_endpoint(f"systemd:{name}") == SystemdSocket(name)
    assert parse_endpoint(str(SystemdSocket(name))) == SystemdSocket(name)


@pytest.mark.parametrize("text", ["systemd:", "systemd:a:b", "systemd:é", "systemd:a\tb", "systemd:" + "x" * 256])
def test_systemd_socket_of_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write systemd:NAME"):
        parse_endpoint(text)


def test_parse_endpoint_without_the_systemd_prefix_is_an_address() -> None:
    assert parse_endpoint("[::1]:843") == Address("::1", 843)
    with pytest.raises(ConfigError, match="write systemd:NAME"):
        SystemdSocket.parse("127.0.0.1:843")
