"""Bytes to text: encodings, the NUL at the end, and files that are something else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import LimitError, PolicyError
from flashpol.policy.decoding import MAX_POLICY_BYTES, decode
from testkit.examples import examples

XML = "<cross-domain-policy/>"


def declared(name: str) -> str:
    return f'<?xml version="1.0" encoding="{name}"?>{XML}'


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (XML.encode(), XML),
        (XML.encode() + b"\0", XML),
        (b"\xef\xbb\xbf" + XML.encode(), XML),
        (b"\xef\xbb\xbf" + declared("UTF-8").encode(), declared("UTF-8")),
        (b"\n\n" + XML.encode(), "\n\n" + XML),
        (XML.encode() + b"\0\0", XML),
        (XML.encode() + b"\0\r\n", XML),
        (XML.encode() + b"\n\0 \0\t", XML + "\n"),
        (XML.encode() + b"\0</html>", XML),
        (
            f"<cross-domain-policy>\n</cross-domain-policy >\0{XML}\0".encode(),
            "<cross-domain-policy>\n</cross-domain-policy >",
        ),
        (declared("").encode(), declared("")),  # the reader refuses it, with the rest of the declaration
        ("<!-- \u00e9 -->".encode(), "<!-- \u00e9 -->"),
        (declared("us-ascii").encode(), declared("us-ascii")),
        (declared("ISO-8859-1").encode() + b"<!-- \xe9 -->", declared("ISO-8859-1") + "<!-- \u00e9 -->"),
        (declared("windows-1252").encode() + b"<!-- \x93 -->", declared("windows-1252") + "<!-- \u201c -->"),
        (XML.encode("utf-16"), XML),
        (b"\xfe\xff" + XML.encode("utf-16-be"), XML),
        (XML.encode("utf-16-le"), XML),
        (XML.encode("utf-16-be"), XML),
        (XML.encode("utf-16") + b"\0", XML),
        ((XML + "\0").encode("utf-16"), XML),
        (declared("UTF-16").encode("utf-16"), declared("UTF-16")),
    ],
)
def test_decode_supported_encodings(data: bytes, text: str) -> None:
    assert decode(data) == text


@pytest.mark.parametrize(
    ("data", "line", "column", "fragment"),
    [
        (b"", 1, 1, "the policy is empty"),
        (b"\0", 1, 1, "the policy is empty"),
        (b" \r\n\t", 1, 1, "the policy is empty"),
        (b"\xef\xbb\xbf", 1, 1, "the policy is empty"),
        (b"\xff\xfe", 1, 1, "the policy is empty"),
        (b"<cross-domain-policy>\n\0</cross-domain-policy>", 2, 1, "a NUL byte inside the policy"),
        (b"<cross-domain-policy>\0\0</cross-domain-policy>\0", 1, 22, "a NUL byte inside the policy"),
        (b"\0<cross-domain-policy/>", 1, 1, "a NUL byte inside the policy"),  # not UTF-16
        (b"Content-Type: text/xml\r\n\r\n<a/>", 1, 1, "this is an HTTP reply with its headers"),
        (b"<html>\0<cross-domain-policy/>", 1, 1, "this is an HTML page"),
        (b"<!-- \0 -->" + XML.encode(), 1, 6, "a NUL byte inside the policy"),
        (b"\0\x16" + XML.encode(), 1, 1, "two bytes of length (00 16) precede the XML, as Java's writeUTF"),
        (b"\0\x16" + XML.encode() + b"\0", 1, 1, "two bytes of length (00 16)"),
        (b"\0\x17" + XML.encode(), 1, 1, "two bytes of length (00 17)"),  # edited since
        (b"\x30\x30<" + b" " * (0x3030 - 1), 1, 1, "two bytes of length (30 30)"),
        (b"\x30\x30<" + b" " * (0x3030 - 1) + b"\0", 1, 1, "two bytes of length (30 30)"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + XML.encode(), 1, 1, "this is an HTTP reply with its headers"),
        (b"<!DOCTYPE html><html><meta></html>", 1, 1, "this is an HTML page"),
        (b"\n  <HTML><br>", 2, 3, "this is an HTML page"),
        (b"<a>\n<b>\x93", 2, 4, "the byte 0x93 is not UTF-8 (in Windows-1252 a typographic quote or dash)"),
        (b"<a>\xc3\xa9\xff", 1, 5, "the byte 0xff is not UTF-8; save the file as UTF-8"),
        (declared("ascii").encode() + b"\xe9", 1, 61, "the byte 0xe9 is not ASCII"),
        (declared("cp1252").encode() + b"\x81", 1, 62, "the byte 0x81 is not Windows-1252"),
        (declared("utf-16").encode(), 1, 31, 'the declaration says "utf-16", but the file is not UTF-16'),
        (declared("utf-8").encode("utf-16"), 1, 31, 'the declaration says "utf-8", but the file is UTF-16'),
        (b"\xef\xbb\xbf" + declared("latin1").encode(), 1, 31, "but the file is UTF-8 (it has a byte order mark)"),
        (b"\n" + declared("koi8-r").encode(), 2, 31, 'the encoding "koi8-r" is not supported'),
        (declared("hex").encode(), 1, 31, 'the encoding "hex" is not supported'),  # a Python codec, not an encoding
        (b"\xff\xfe<\0a\0\n\0\0\xd8<\0", 2, 1, "the file begins as UTF-16 and then is not"),
    ],
)
def test_decode_refuses_with_place_and_reason(data: bytes, line: int, column: int, fragment: str) -> None:
    with pytest.raises(PolicyError) as caught:
        decode(data)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert fragment in str(caught.value)


def test_decode_blank_lines_are_not_a_length_prefix() -> None:
    # Two newlines read as the number 0x0a0a, which this file happens to match.
    assert decode(b"\n\n<" + b" " * (0x0A0A - 1)).startswith("\n\n<")


def test_decode_limit_of_size() -> None:
    decode(b"x" * MAX_POLICY_BYTES)
    with pytest.raises(LimitError, match="the policy has more than 1,048,576 bytes; keep it within 1,048,576"):
        decode(b"x" * (MAX_POLICY_BYTES + 1))


@examples(200)
@given(st.binary(), st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<", b"\0\5<"]))
def test_decode_any_bytes_are_text_or_a_policy_error(data: bytes, begin: bytes) -> None:
    try:
        text = decode(begin + data)
    except PolicyError:
        return
    assert "\0" not in text
    assert not text.startswith("\ufeff") or data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
