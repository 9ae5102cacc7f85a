"""Classifies the bytes of a reply: a policy, another protocol, or nothing."""

import enum
import re
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Self

from flashpol.probe.exchange import End, Exchange
from flashpol.probe.recognition import is_html, is_policy

REQUEST = b"<policy-file-request/>"
NUL = b"\0"

_EXCERPT = 60  # bytes quoted as evidence


class Kind(enum.StrEnum):
    """The kind of a reply."""

    NOTHING = "nothing"
    POLICY = "policy"  # or a broken one: lint says what is wrong with it
    HTTP = "http"  # or a page of HTML without a header
    TLS = "tls"
    ECHO = "echo"  # the request itself
    OTHER = "other"


# RFC 9112 section 4; a TLS alert or handshake, major version 3 (RFC 8446 section 5.1).
_SIGNATURES = ((b"HTTP/", Kind.HTTP), (b"\x15\x03", Kind.TLS), (b"\x16\x03", Kind.TLS), (REQUEST, Kind.ECHO))


@dataclass(frozen=True)
class Reply:
    """The bytes that the server sent on one connection, and how it ended (None: not known)."""

    data: bytes
    end: End | None

    @classmethod
    def of(cls, exchange: Exchange) -> Self:
        return cls(exchange.data, exchange.end)

    def of_http(self) -> "Reply":
        """Return the body of this HTTP reply as a reply of its own, if its status is 200; otherwise this one."""
        from http.client import HTTPException, HTTPResponse  # 15 ms, for web servers only

        response = HTTPResponse(_Received(self.data))  # type: ignore[arg-type]
        try:
            response.begin()
            body = response.read()
        except (HTTPException, ValueError):
            return self
        return Reply(body, End.CLOSED) if response.status == 200 and body else self

    @cached_property
    def kind(self) -> Kind:
        if not self.data.strip(NUL):
            return Kind.NOTHING
        for start, kind in _SIGNATURES:
            if self.data.startswith(start):
                return kind
        if is_policy(self._text):
            return Kind.POLICY
        return Kind.HTTP if is_html(self._text) else Kind.OTHER

    @property
    def is_policy(self) -> bool:
        return self.kind is Kind.POLICY

    @cached_property
    def _text(self) -> str:
        """The file as text, as far as ASCII goes: every other byte of UTF-16 is NUL."""
        return self.file.replace(NUL, b"").decode("latin-1").removeprefix("\xef\xbb\xbf").lstrip("\xfe\xff")

    @cached_property
    def _utf16(self) -> bool:
        """The NULs are halves of characters."""
        body = self.data[:200]
        return body.count(NUL) * 3 > len(body)

    @cached_property
    def _terminator(self) -> int:
        """The index of the NUL that ends the policy, or -1. A NUL in the first two bytes belongs to a length prefix."""
        if self._utf16:  # one byte more than whole characters
            return len(self.data) - 1 if len(self.data) % 2 and self.data.endswith(NUL) else -1
        return self.data.find(NUL, 2)

    @property
    def terminated(self) -> bool:
        return 0 <= self._terminator < len(self.data)

    @property
    def file(self) -> bytes:
        """The policy as lint reads it: the bytes before the terminating NUL."""
        return self.data[: self._terminator] if self.terminated else self.data

    @property
    def sha256(self) -> str:
        """SHA-256 of `file`, in hexadecimal digits."""
        from hashlib import sha256  # loads OpenSSL, 3 ms

        return sha256(self.file).hexdigest()

    @property
    def extra(self) -> bytes:
        """The bytes after the terminating NUL."""
        return self.data[self._terminator + 1 :] if self.terminated else b""

    @cached_property
    def after_root(self) -> str | None:
        """The characters between the end tag of the policy and its NUL, without blanks; None without an end tag."""
        ends = [match.end() for match in _END.finditer(self._text.encode("latin-1"))]
        return self._text[ends[-1] :].strip() if ends else None

    @cached_property
    def xml_size(self) -> int:
        """The number of bytes through the end tag of the policy, or of the whole file without an end tag."""
        ends = [match.end() for match in _END.finditer(self.file)]
        return ends[-1] if ends else len(self.file)

    @property
    def whole(self) -> bool:
        """The reply is complete: it has the NUL or the end tag, or the server closed the connection."""
        return self.terminated or self.end is End.CLOSED or self.after_root is not None

    @property
    def served(self) -> bool:
        """The reply is a complete policy."""
        return self.is_policy and self.whole


_END = re.compile(rb"</(?:cross-domain|access)-policy\s*>|<(?:cross-domain|access)-policy[^<>]*/>", re.I)
_ESCAPES = {code: f"\\x{code:02x}" for code in range(256) if not 0x20 <= code < 0x7F}
_ESCAPES |= {0: "\\0", 0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r", 0x5C: "\\\\"}


class _Received:
    """The part of a socket that http.client uses."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _: str) -> BytesIO:
        return BytesIO(self._data)


def printable(data: bytes, most: int = _EXCERPT) -> str:
    """Return bytes in quotes, as one line of printable ASCII.

    A backslash in the data is doubled: `\\0` is a NUL, and `\\\\0` is a backslash and a zero.
    """
    text = data[:most].decode("latin-1").translate(_ESCAPES)
    return f'"{text}"' + (f" and {len(data) - most:,} more bytes" if len(data) > most else "")
