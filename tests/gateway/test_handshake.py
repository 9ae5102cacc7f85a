"""WebSocket's opening handshake: what is refused and why, what is agreed on."""

import pytest

from flashpol.gateway import replies
from flashpol.gateway.handshake import (
    NO_KEY,
    NO_UPGRADE,
    OTHER_VERSION,
    accept,
    compression,
    grouped,
    has_key,
    refusal_of,
    values_of,
)

KEY = (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ==")
OPENING = [
    (b"Host", b"games.example.com"),
    (b"Connection", b"Upgrade"),
    (b"Upgrade", b"websocket"),
    (b"Sec-WebSocket-Version", b"13"),
    KEY,
]
NO_CONTEXT = b"permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=9"


def changed(name: bytes, *values: bytes) -> list[tuple[bytes, bytes]]:
    """The opening with these values of a field."""
    return [each for each in OPENING if each[0] != name] + [(name, value) for value in values]


@pytest.mark.parametrize(
    "fields",
    [
        OPENING,
        [(name.lower(), value) for name, value in OPENING],  # HAProxy
        changed(b"Connection", b"keep-alive, Upgrade"),  # Firefox
        changed(b"Connection", b"keep-alive", b"upgrade"),
        changed(b"Upgrade", b"WebSocket"),
        changed(b"Upgrade", b"h2c , websocket"),
    ],
)
def test_refusal_of_what_browsers_and_proxies_send_is_none(fields: list[tuple[bytes, bytes]]) -> None:
    assert refusal_of(grouped(fields)) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (b"Upgrade", []),
        (b"Upgrade", [b"h2c"]),
        (b"Upgrade", [b"websockets"]),
        (b"Connection", []),
        (b"Connection", [b"close"]),
        (b"Connection", [b"up grade"]),
    ],
)
def test_refusal_of_a_request_without_upgrade_is_426(name: bytes, values: list[bytes]) -> None:
    assert refusal_of(grouped(changed(name, *values))) == NO_UPGRADE
    assert NO_UPGRADE[:2] == (replies.UPGRADE_REQUIRED, "no_upgrade")
    assert b"\r\nUpgrade: websocket\r\n" in replies.UPGRADE_REQUIRED


@pytest.mark.parametrize("values", [[], [b"8"], [b"12"], [b"13, 8"], [b"13", b"13"], [b"013"]])
def test_refusal_of_another_version_names_ours(values: list[bytes]) -> None:
    assert refusal_of(grouped(changed(b"Sec-WebSocket-Version", *values))) == OTHER_VERSION
    assert OTHER_VERSION[:2] == (replies.VERSION_REQUIRED, "malformed")
    assert replies.VERSION_REQUIRED.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in replies.VERSION_REQUIRED


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"dGhlIHNhbXBsZSBub25jZQ"],  # without its end
        [b"dGhlIHNhbXBsZSBub25jZQ==", b"dGhlIHNhbXBsZSBub25jZQ=="],
        [b"AAAAAAAAAAAAAAAAAAAA"],  # 15 bytes
        [b"AAAAAAAAAAAAAAAAAAAAAAA="],  # 17 bytes
        [b"dGhlIHNhbXBsZSBu?25jZQ=="],
        [b"\xff" * 24],
    ],
)
def test_refusal_of_a_key_that_is_not_16_bytes_is_400(values: list[bytes]) -> None:
    fields = changed(b"Sec-WebSocket-Key", *values)
    assert not has_key(grouped(fields))
    assert refusal_of(grouped(fields)) == NO_KEY
    assert (NO_KEY.reply[:13], NO_KEY.result) == (b"HTTP/1.1 400 ", "malformed")


def test_accept_has_the_reply_of_rfc_6455() -> None:
    """Section 1.3."""
    assert accept(grouped(OPENING)) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([b"binary"], True),
        ([b"base64, binary"], True),
        ([b"base64", b" binary "], True),
        ([b"chat"], False),
        ([b"Binary"], False),
        ([], False),
    ],
)
def test_accept_chooses_binary_if_it_is_offered(offered: list[bytes], chosen: bool) -> None:
    reply = accept(grouped([*OPENING, *((b"sec-websocket-protocol", value) for value in offered)]))
    assert (b"\r\nSec-WebSocket-Protocol: binary\r\n" in reply) is chosen


@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        (b"permessage-deflate; client_max_window_bits", NO_CONTEXT),  # browsers, node's ws
        (
            b"permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            NO_CONTEXT + b"; server_max_window_bits=12",
        ),  # websockets
        (b'permessage-deflate; client_max_window_bits="10"', NO_CONTEXT),
        (b"x-webkit-deflate-frame, permessage-deflate; client_max_window_bits", NO_CONTEXT),
        (b"permessage-deflate; foo, permessage-deflate; client_max_window_bits", NO_CONTEXT),
        (b"PERMESSAGE-DEFLATE; Client_Max_Window_Bits", NO_CONTEXT),
        (b"permessage-deflate", None),
        (b"permessage-deflate; client_max_window_bits=8", None),
        (b"permessage-deflate; client_max_window_bits; server_max_window_bits=10", None),
        (b"permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        (b"permessage-deflate; client_max_window_bits=7", None),
        (b"permessage-deflate; client_max_window_bits=16", None),
        (b"permessage-deflate; client_max_window_bits=", None),
        (b"permessage-deflate; client_max_window_bits; server_max_window_bits", None),
        (b"permessage-deflate; client_max_window_bits; client_no_context_takeover=1", None),
        (b"permessage-deflate; client_max_window_bits;", None),
        (b"permessage-bzip2; client_max_window_bits", None),
        (b"", None),
    ],
)
def test_compression_agrees_on_offers_that_can_be_met(offer: bytes, agreed: bytes | None) -> None:
    assert compression(grouped([*OPENING, (b"Sec-WebSocket-Extensions", offer)])) == agreed


def test_accept_names_the_extension() -> None:
    assert b"\r\nSec-WebSocket-Extensions: x; y\r\n\r\n" in accept(grouped(OPENING), b"x; y")


def test_values_of_a_field_come_in_order_whatever_its_case() -> None:
    assert values_of(grouped([(b"A", b"1"), (b"b", b"2"), (b"a", b"3")]), b"a") == [b"1", b"3"]
