"""The classification of the bytes of a reply."""

import pytest
from broken import POLICY
from hypothesis import given
from hypothesis import strategies as st

from flashpol.probe.exchange import End
from flashpol.probe.reply import Kind, Reply, printable

UTF16 = POLICY.decode().encode("utf-16")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", Kind.NOTHING),
        (b"\0", Kind.NOTHING),
        (POLICY, Kind.POLICY),
        (b"  \r\n" + POLICY, Kind.POLICY),
        (b"\xef\xbb\xbf" + POLICY, Kind.POLICY),
        (b"\x00\x9b" + POLICY, Kind.POLICY),
        (UTF16, Kind.POLICY),
        (b"&lt;cross-domain-policy&gt;", Kind.POLICY),
        (b"<allow-access-from domain='*' to-ports='1935'/>", Kind.POLICY),  # the root was removed
        (b"<crossdomain><allow-access-from domain='*' to-ports='*'/></crossdomain>", Kind.POLICY),  # or misspelled
        (b"<Cross-Domain-Policy></Cross-Domain-Policy>", Kind.POLICY),
        (b"< cross-domain-policy>", Kind.POLICY),
        (b'"' + POLICY + b'"', Kind.POLICY),
        (b"<?php echo '" + POLICY + b"' ?>", Kind.POLICY),
        (b"%3Ccross-domain-policy%3E", Kind.POLICY),
        (b"\\u003ccross-domain-policy>", Kind.POLICY),
        (b"<![CDATA[" + POLICY + b"]]>", Kind.POLICY),
        (b"<br />\n<b>Warning</b>: no file in <b>policy.php</b><br>\n" + POLICY, Kind.POLICY),
        (b"<?xml version='1.0'?><!-- games --><!DOCTYPE cross-domain-policy SYSTEM 'x.dtd'>", Kind.POLICY),
        (b"<?xml version='1.0'?>\n<cross-dom", Kind.POLICY),  # cut off
        (b"<access-policy><cross-domain-access/></access-policy>", Kind.POLICY),
        (b"<html>", Kind.HTTP),
        (b"<!DOCTYPE HTML>\n<title>x</title>", Kind.HTTP),
        (b"<!-- x --><html><pre>&lt;cross-domain-policy&gt;</pre></html>", Kind.HTTP),
        (b"<?xml version='1.0'?><stream:stream xmlns='jabber:client'><stream:error/></stream:stream>", Kind.OTHER),
        (b"<msg t='sys'><body action='apiOK' r='0'></body></msg>\0", Kind.OTHER),
        (b"<error>there is no cross-domain-policy here</error>", Kind.OTHER),
        (b"<error>&lt;cross-domain-policy&gt; expected</error>", Kind.OTHER),
        (b"<reply><policy><cross-domain-policy/></policy></reply>", Kind.OTHER),
        (b"<?xml version='1.0'?>", Kind.OTHER),
        (b"<c", Kind.OTHER),
        (b"<hello/>\0" + POLICY, Kind.OTHER),  # Flash Player stops at the NUL
        ("<msg>hello</msg>".encode("utf-16"), Kind.OTHER),
        ("<msg>hello</msg>".encode("utf-16-be"), Kind.OTHER),
        (b"\xff\xfe\x01\x02", Kind.OTHER),
        (b"a < b", Kind.OTHER),
        (b'{"error": "unknown"}', Kind.OTHER),
        (b"%xt%e%-1%\0", Kind.OTHER),
        (b"HTTP/1.1 200 OK\r\n\r\n" + POLICY, Kind.HTTP),
        (b"\x15\x03\x01\x00\x02\x02\x46", Kind.TLS),
        (b"\x16\x03\x03\x00\x31", Kind.TLS),
        (b"<policy-file-request/>\0", Kind.ECHO),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Kind.OTHER),
    ],
)
def test_reply_kind_of_bytes(data: bytes, kind: Kind) -> None:
    assert Reply(data, End.CLOSED).kind is kind


@pytest.mark.parametrize(
    ("data", "file", "extra", "terminated"),
    [
        (POLICY, POLICY, b"", False),
        (POLICY + b"\0", POLICY, b"", True),
        (POLICY + b"\0more", POLICY, b"more", True),
        (b"\x00\x9b" + POLICY + b"\0", b"\x00\x9b" + POLICY, b"", True),
        (UTF16, UTF16, b"", False),
        (UTF16 + b"\0", UTF16, b"", True),
        (b"\0", b"", b"", True),
    ],
)
def test_reply_with_nul_separates_file_and_extra(data: bytes, file: bytes, extra: bytes, terminated: bool) -> None:
    reply = Reply(data, End.OPEN)
    assert (reply.file, reply.extra, reply.terminated) == (file, extra, terminated)


@pytest.mark.parametrize(
    ("data", "end", "whole"),
    [
        (POLICY, End.OPEN, True),
        (POLICY + b"\r\n", End.OPEN, True),
        (POLICY[:-1], End.OPEN, False),
        (POLICY + b"\\0", End.OPEN, True),
        (POLICY + b"&#0;", End.RESET, True),
        (b"<cross-domain-policy/>", End.OPEN, True),
        (b"<access-policy></access-policy >", End.OPEN, True),
        (POLICY.decode().encode("utf-16"), End.OPEN, True),
        (POLICY[:-1], End.RESET, False),
        (POLICY[:-1], End.CLOSED, True),
        (POLICY[:-1] + b"\0", End.RESET, True),
    ],
)
def test_reply_whole_needs_nul_end_tag_or_close(data: bytes, end: End, whole: bool) -> None:
    assert Reply(data, end).whole is whole


@given(st.binary(max_size=300), st.sampled_from(End))
def test_reply_of_any_bytes_loses_none(data: bytes, end: End) -> None:
    reply = Reply(data, end)
    assert reply.kind in Kind
    assert reply.file + b"\0" * reply.terminated + reply.extra == data


@given(st.binary(max_size=300), st.integers(1, 100))
def test_printable_of_any_bytes_is_one_printable_line(data: bytes, most: int) -> None:
    assert printable(data, most).isprintable()


def test_printable_of_control_characters_escapes_them() -> None:
    assert printable(b"\x1b[31m\0\r\n\xff") == '"\\x1b[31m\\0\\r\\n\\xff"'
    assert printable(b"policy>\\0") == '"policy>\\\\0"'
    assert printable(b"\\\0\\x00") == '"\\\\\\0\\\\x00"'
    assert printable(b"x" * 70) == '"' + "x" * 60 + '" and 10 more bytes'
