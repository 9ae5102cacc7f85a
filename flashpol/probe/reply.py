"""What a server answered, as far as the bytes say it: a policy, some other protocol, or nothing."""

import enum
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from flashpol.probe.exchange import End, Exchange

REQUEST = b"<policy-file-request/>"
NUL = b"\0"

_EXCERPT = 60  # bytes that are quoted as evidence
_ROOTS = (b"cross-domain-policy", b"access-policy")
_ENDS = tuple(b"</" + root + b">" for root in _ROOTS)


class Kind(enum.StrEnum):
    """What the reply is, by its first bytes."""

    NOTHING = "nothing"
    POLICY = "policy"  # or what was meant to be one: lint says how good
    HTTP = "http"
    TLS = "tls"
    ECHO = "echo"  # our own request
    OTHER = "other"


# RFC 9112 section 4; a TLS alert or handshake, major version 3 (RFC 8446 section 5.1).
_SIGNATURES = ((b"HTTP/", Kind.HTTP), (b"\x15\x03", Kind.TLS), (b"\x16\x03", Kind.TLS), (REQUEST, Kind.ECHO))


@dataclass(frozen=True)
class Reply:
    """The bytes of one exchange. `text` ends before the first NUL, where Flash Player stops."""

    data: bytes
    end: End | None

    @classmethod
    def of(cls, exchange: Exchange) -> Self:
        return cls(exchange.data, exchange.end)

    @cached_property
    def kind(self) -> Kind:
        if not self.data.strip(NUL):
            return Kind.NOTHING
        for start, kind in _SIGNATURES:
            if self.data.startswith(start):
                return kind
        if self.has_root or re.match(rb"\W{0,8}[<\xff\xfe]", self.data):
            return Kind.POLICY
        return Kind.OTHER

    @property
    def is_policy(self) -> bool:
        return self.kind is Kind.POLICY

    @property
    def has_root(self) -> bool:
        """It names the element that a policy consists of: more than a page of HTML does."""
        plain = self.data.replace(NUL, b"")  # UTF-16 has one in every other byte
        return any(root in plain for root in _ROOTS)

    @cached_property
    def _utf16(self) -> bool:
        """Its NULs are halves of characters."""
        body = self.data[:200]
        return body.count(NUL) * 3 > len(body)

    @cached_property
    def _terminator(self) -> int:
        """Where the NUL is that ends the policy, or -1. In a length of two bytes in front the first is one too."""
        if self._utf16:  # an odd byte at the end
            return len(self.data) - 1 if len(self.data) % 2 and self.data.endswith(NUL) else -1
        return self.data.find(NUL, 2)

    @property
    def terminated(self) -> bool:
        return 0 <= self._terminator < len(self.data)

    @property
    def file(self) -> bytes:
        """The policy as lint takes it: without its NUL, and what comes after that."""
        return self.data[: self._terminator] if self.terminated else self.data

    @property
    def sha256(self) -> str:
        """Of the file."""
        from hashlib import sha256  # loads OpenSSL: 3 ms, when there is something to hash

        return sha256(self.file).hexdigest()

    @property
    def extra(self) -> bytes:
        """What comes after the NUL."""
        return self.data[self._terminator + 1 :] if self.terminated else b""

    @property
    def whole(self) -> bool:
        """The end of the XML, or of the connection, came."""
        return self.terminated or self.end is End.CLOSED or self.file.rstrip().endswith(_ENDS)

    @property
    def served(self) -> bool:
        """A client could have it: a policy, and all of it."""
        return self.is_policy and self.whole


def printable(data: bytes, most: int = _EXCERPT) -> str:
    """Bytes in quotes, as one line that no terminal obeys."""
    cut = data[:most].decode("ascii", "backslashreplace")
    text = "".join(c if c.isprintable() else "\\0" if c == "\0" else ascii(c)[1:-1] for c in cut)
    return f'"{text}"' + (f" and {len(data) - most:,} bytes more" if len(data) > most else "")
