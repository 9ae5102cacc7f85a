"""Figures of TLS as the templates show them: listeners, handshakes that failed and what to do, certificates."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashpol.admin.formatting import about, date_time, share
from flashpol.admin.tls import HANDSHAKE_FAILURES, Expiry, Json, attempts, failed, time_left

# Host names of a certificate that its row shows; it may have a hundred.
SHOWN_NAMES = 5
BADGES = {Expiry.FAR: "good", Expiry.EXPIRING: "fair", Expiry.URGENT: "bad", Expiry.EXPIRED: "bad"}


@dataclass(frozen=True)
class TlsRow:
    """A listener that speaks TLS. versions: (version, handshakes), of those that clients used; rate: handshakes a
    second; failed: of the last minute, with their share of all handshakes. None: not known yet."""

    listener: str
    certificates: Sequence[str]
    open: int
    handshaking: int
    handshakes: int
    versions: Sequence[tuple[str, int]]
    resumed: int
    rate: float | None
    failed: int | None
    failed_share: float | None


@dataclass(frozen=True)
class FailureRow:
    words: str
    advice: str
    reason: str
    minute: int | None
    total: int


@dataclass(frozen=True)
class CertificateRow:
    name: str
    names: Sequence[str]
    more_names: int
    key: str
    sha256: str
    listeners: Sequence[str]
    expires: str
    left: str
    badge: str


@dataclass(frozen=True)
class Tls:
    """estimates: (when, median, p99) of the time to a complete handshake."""

    listeners: Sequence[TlsRow]
    failures: Sequence[FailureRow]
    estimates: Sequence[tuple[str, str, str]]
    certificates: Sequence[CertificateRow]


def tls(status: Json) -> Tls | None:
    """None if there is neither a listener that speaks TLS nor a certificate."""
    listeners = [each for each in status["listeners"] if each["certificates"]]
    if not listeners and not status["certificates"]:
        return None
    windows = (("Last minute", status["minute"]), ("Since start", status["total"]))
    bounds = status["bucket_bounds_seconds"]
    minute = status["minute"]["handshake_failures"] if status["minute"] else None
    counts = [(when, window["handshake_counts"]) for when, window in windows if window]
    now, recent = (
        {each["listener"]: each for each in window["tls_listeners"]} if window else {}
        for window in (status["now"], status["minute"])
    )
    seconds = status["now"]["seconds"] if status["now"] else 0.0
    return Tls(
        [_tls_row(each, now.get(each["name"]), recent.get(each["name"]), seconds) for each in listeners],
        [
            FailureRow(*HANDSHAKE_FAILURES[reason], reason, minute[reason] if minute else None, number)
            for reason, number in status["total"]["handshake_failures"].items()
            if number
        ],
        [(when, about(bounds, c, 0.5), about(bounds, c, 0.99)) for when, c in counts if any(c)],
        [_certificate_row(each, listeners, status["time"]) for each in status["certificates"]],
    )


def _tls_row(listener: Json, now: Json | None, minute: Json | None, seconds: float) -> TlsRow:
    """now, minute: its counters of these windows; seconds: as long as `now` is."""
    return TlsRow(
        listener["name"],
        listener["certificates"],
        listener["tls"],
        listener["handshaking"],
        sum(listener["handshakes"].values()),
        [(version, number) for version, number in listener["handshakes"].items() if number],
        listener["resumed"],
        sum(now["handshakes"].values()) / seconds if now else None,
        failed(minute) if minute else None,
        share(failed(minute), attempts(minute)) if minute else None,
    )


def _certificate_row(certificate: Json, listeners: Sequence[Json], now: float) -> CertificateRow:
    names, not_after = certificate["names"], certificate["not_after"]
    return CertificateRow(
        certificate["name"],
        names[:SHOWN_NAMES],
        max(0, len(names) - SHOWN_NAMES),
        certificate["key"],
        certificate["sha256"],
        [each["name"] for each in listeners if certificate["name"] in each["certificates"]],
        date_time(not_after),
        time_left(not_after, now),
        BADGES[Expiry.of(not_after, now)],
    )
