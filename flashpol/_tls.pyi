from collections.abc import Iterable, Sequence
from typing import Final, Self, final

from flashpol._fastpath import CodecFactory

LIBRARY: Final[str]
"""The version of OpenSSL that is loaded, such as "OpenSSL 3.0.19 27 Jan 2026"."""

class TlsError(Exception):
    """What is wrong with a certificate, a key, or a setting of TLS: one line."""

class PrivateKeyError(TlsError):
    """The private key cannot be used."""

class KeyMismatch(PrivateKeyError):
    """The private key is another certificate's."""

@final
class Certificate:
    """A certificate with its private key, judged.

    chain: PEM, the server's certificate first, then the intermediate ones. key: PEM; None: it is in `chain`. Raises
    TlsError if a server cannot use them, PrivateKeyError if the key is why. The clock is not read: an expired
    certificate is no error here.
    """

    def __init__(self, chain: bytes, key: bytes | None = None) -> None: ...
    @property
    def names(self) -> tuple[str, ...]:
        """Host names in lower case and IP addresses, from the subjectAltName; without them the CN of the subject, if it
        is a host name."""
    @property
    def not_before(self) -> int:
        """Seconds since 1970, as `not_after`."""
    @property
    def not_after(self) -> int: ...
    @property
    def key(self) -> str:
        """The kind of the key, such as "ECDSA P-256" or "RSA 2048"."""
    @property
    def sha256(self) -> str:
        """Of the server's certificate, in hexadecimal."""
    @property
    def findings(self) -> tuple[str, ...]:
        """What clients will object to, each in one line: what, and what to do."""
    @property
    def issuers(self) -> tuple[tuple[str, int], ...]:
        """The subject, quoted, and `not_after` of each intermediate certificate in the chain."""

TICKET_KEY_BYTES: Final[int]
PROFILES: Final[tuple[str, ...]]
"""The values of tls_profile."""

@final
class ServerContext(CodecFactory):
    """Ends TLS for the clients of a listener.

    certificates: each with its chain and key in PEM, and the names that it is for, with one level of "*". The first is
    for clients that name no host. ticket_keys: 80 bytes that all workers share; empty: random ones. Raises TlsError.
    """

    def __new__(
        cls,
        certificates: Iterable[tuple[bytes, bytes, Sequence[str]]],
        *,
        profile: str = "modern",
        strict_sni: bool = False,
        tickets: int = 0,
        ticket_keys: bytes = b"",
    ) -> Self: ...
    def codec(self) -> TlsCodec:
        """A codec without a connection, for tests."""

@final
class TlsCodec:
    """The codec of one connection, for tests: the fast path and the pump call it in C.

    `decode` and `work` return ("ok", "work", "end" or "error", plain bytes, bytes that it sends the client by itself).
    """

    def __new__(cls, context: ServerContext) -> Self: ...
    def decode(self, wire: bytes) -> tuple[str, bytes, bytes]:
        """Take at most 16 KB. "work": call `work` next."""

    def work(self) -> tuple[str, bytes, bytes]:
        """The step of the handshake that `decode` asked for."""

    def encode(self, plain: bytes) -> bytes | None:
        """None: the codec has failed, or its handshake is not complete."""

    def finish(self) -> bytes:
        """What says that nothing more will be sent. Once."""

    @property
    def established(self) -> bool:
        """The handshake is complete."""

    @property
    def ended(self) -> bool:
        """The peer has said that it will send nothing more."""

    @property
    def version(self) -> str | None:
        """One of TLS_VERSIONS, once established."""

    @property
    def resumed(self) -> bool: ...
    @property
    def unknown_name(self) -> bool:
        """The client asked for a name that no certificate has."""

    @property
    def failure(self) -> str | None:
        """One of HANDSHAKE_FAILURES, after "error"."""
