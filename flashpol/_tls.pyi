from collections.abc import Iterable, Sequence
from typing import Final, Self, final

from flashpol._fastpath import CodecFactory

LIBRARY: Final[str]
"""The version of OpenSSL that is loaded, such as "OpenSSL 3.0.19 27 Jan 2026"."""

class TlsError(Exception):
    """What is wrong with a certificate, a key, or a setting of TLS: one line."""

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
