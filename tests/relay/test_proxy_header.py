"""The PROXY header that backends read: text and bytes as in the specification."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.relay.proxy_header import VERSIONS, encode, tls_fields

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
IP = st.ip_addresses().map(str)
PORT = st.integers(0, 65535)


def test_v1_header_is_as_in_the_specification() -> None:
    assert (
        encode("v1", ("192.0.2.1", 56324), ("198.51.100.9", 843)) == b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 843\r\n"
    )
    assert encode("v1", ("2001:db8::1", 1), ("2001:db8::2", 2)) == b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"


def test_v2_header_is_as_in_the_specification() -> None:
    assert encode("v2", ("192.0.2.1", 0x1234), ("198.51.100.9", 843)) == (
        SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 198, 51, 100, 9]) + b"\x12\x34\x03\x4b"
    )


def test_header_without_addresses_says_unknown_or_local() -> None:
    assert encode("v1", None, None) == b"PROXY UNKNOWN\r\n"
    assert encode("v2", None, ("192.0.2.1", 1)) == SIGNATURE + b"\x20\x00\x00\x00"


def test_header_of_mixed_families_maps_ipv4_to_ipv6() -> None:
    """A proxy may know one end as IPv4 and the other as IPv6: both are written as IPv6, IPv4 with dots."""
    assert encode("v1", ("192.0.2.1", 1), ("::1", 2)) == b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"


@pytest.mark.parametrize("version", VERSIONS)
@given(client=st.tuples(IP, PORT), server=st.tuples(IP, PORT))
def test_header_of_any_addresses_parses_back(version: str, client: tuple[str, int], server: tuple[str, int]) -> None:
    header = encode(version, client, server)
    if version == "v1":
        assert len(header) <= 107  # as long as the specification allows
        proxy, family, *addresses, port, other = header.decode().split()
        assert (proxy, family) in {("PROXY", "TCP4"), ("PROXY", "TCP6")}
        assert (int(port), int(other)) == (client[1], server[1])
        found = [ipaddress.ip_address(address) for address in addresses]
    else:
        assert header[:13] == SIGNATURE + b"\x21"
        size = {0x11: 4, 0x21: 16}[header[13]]
        assert int.from_bytes(header[14:16]) == len(header) - 16 == 2 * size + 4
        found = [ipaddress.ip_address(header[16 + n * size :][:size]) for n in range(2)]
        assert header[-4:] == client[1].to_bytes(2) + server[1].to_bytes(2)
    for given_, read in zip((client, server), found, strict=True):
        ip = ipaddress.ip_address(given_[0])
        assert ip == (getattr(read, "ipv4_mapped", None) if ip.version == 4 and read.version == 6 else read)


def test_v2_header_of_a_client_with_tls_has_the_fields_of_the_specification() -> None:
    header = encode("v2", ("192.0.2.1", 1), ("192.0.2.2", 2), tls_fields("TLSv1.3", "TLS_AES", b"a.example"))
    assert header[14:16] == (12 + 12 + 3 + 5 + 10 + 10).to_bytes(2, "big")
    assert header[28:] == (
        b"\x02\x00\x09a.example\x20\x00\x19\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3\x23\x00\x07TLS_AES"
    )


def test_v2_header_of_a_client_that_names_no_host_has_no_authority() -> None:
    assert tls_fields("TLSv1.2", "A", b"").startswith(b"\x20")
