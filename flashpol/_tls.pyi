from typing import Final

LIBRARY: Final[str]
"""The version of OpenSSL that is loaded, such as "OpenSSL 3.0.19 27 Jan 2026"."""

class TlsError(Exception):
    """What is wrong with a certificate, a key, or a setting of TLS: one line."""
