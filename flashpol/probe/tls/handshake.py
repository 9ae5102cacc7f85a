"""The record of a TLS handshake: plain values, which a test can write by hand."""

import enum
from typing import NamedTuple


class Outcome(enum.StrEnum):
    """How a handshake ended."""

    COMPLETED = "completed"
    UNTRUSTED = "untrusted"  # the prober itself ended it: the certificate did not pass the verification
    ALERT = "alert"  # the server refused it
    CLOSED = "closed"  # FIN
    RESET = "reset"  # RST
    TIMEOUT = "timeout"
    NOT_TLS = "not-tls"  # the server sent something else
    FAILED = "failed"  # OpenSSL did not accept what the server sent


# RFC 8446, section 6, and those of RFC 5246 that it dropped.
ALERTS = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 21: "decryption_failed", 22: "record_overflow",
    30: "decompression_failure", 40: "handshake_failure", 41: "no_certificate", 42: "bad_certificate",
    43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error", 51: "decrypt_error",
    60: "export_restriction", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
    110: "unsupported_extension", 111: "certificate_unobtainable", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 114: "bad_certificate_hash_value", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip


class Handshake(NamedTuple):
    """What happened during the handshake of one connection.

    `ended` is in seconds since connect(2) was called. `alert` is the number of the server's alert. `verified` says
    whether the certificate was to be verified; `verify_code` is then OpenSSL's X509_V_ERR number, 0 if it passed.
    `chain` are the certificates as the server sent them, the server's own first, in DER. `first` is the beginning of
    what the server sent. `close_notify` says whether the server announced its end inside TLS; None if it did not end.
    """

    outcome: Outcome
    ended: float
    version: str = ""
    suite: str = ""
    alert: int | None = None
    error: str = ""
    verified: bool = False
    verify_code: int = 0
    verify_message: str = ""
    chain: tuple[bytes, ...] = ()
    first: bytes = b""
    close_notify: bool | None = None

    @property
    def completed(self) -> bool:
        return self.outcome is Outcome.COMPLETED

    @property
    def words(self) -> str:
        """Version and suite, as in `TLS 1.3, TLS_AES_256_GCM_SHA384`."""
        return f"{self.version}, {self.suite}"

    @property
    def alert_name(self) -> str:
        return ALERTS.get(-1 if self.alert is None else self.alert, "an unknown one")
