"""What operators are told about TLS: certificates that expire, handshakes that fail, and what to do about each.

Times are seconds; `not_after` and `now` are since the epoch.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from flashpol.admin.formatting import count, date_time, percent, share
from flashpol.admin.problem_kinds import ERROR, WARNING, Problem

if TYPE_CHECKING:
    from flashpol.serving.certificates import CertificateFacts

DAY = 86_400
# Certificates are renewed a month before they expire, those of 47 days two weeks before: then renewal has failed. In
# the last three days somebody has to act.
EXPIRING, URGENT = 14 * DAY, 3 * DAY
# This share of a listener's handshakes failed in a minute, and at least so many: scanners alone are fewer.
FAILURES, FAILURES_OF = 0.2, 10
# The same of clients that offer only old cipher suites, and of those that ask for a name that no certificate has.
OLD_CLIENTS, OLD_CLIENTS_OF = 0.05, 5
UNKNOWN_NAMES, UNKNOWN_NAMES_OF = 0.05, 5
# Names of a certificate that one line shows.
SHOWN_NAMES = 3

Json = dict[str, Any]


class Failure(NamedTuple):
    """Handshakes that failed for one reason: what happened, and what an operator can do."""

    words: str
    advice: str


# In the order of `_fastpath.HANDSHAKE_FAILURES`.
HANDSHAKE_FAILURES: Mapping[str, Failure] = {
    "version": Failure(
        "no version of TLS in common",
        'tls_profile = "flash" accepts TLS 1.0 and 1.1 too; SSL 3.0 and older cannot be served',
    ),
    "cipher": Failure(
        "no cipher suite in common",
        'tls_profile = "compatible" accepts more; clients that know only RSA need an RSA certificate beside ECDSA',
    ),
    "old_client": Failure(
        "no cipher suite in common: the client offers only CBC suites",
        'AIR and Flash clients need tls_profile = "flash"',
    ),
    "alpn": Failure(
        "no application protocol in common",
        "the client wants another protocol than http/1.1, as HTTP/2 clients do: it has the wrong port",
    ),
    "name": Failure(
        "no certificate has the name that the client asks for, and tls_strict_sni is on",
        "add a certificate with that name to tls, or set tls_strict_sni = false",
    ),
    "certificate": Failure(
        "the client rejected the certificate",
        "flashpol probe HOST --tls says why: expired, another name, an unknown CA, an incomplete chain",
    ),
    "alert": Failure(
        "the client ended the handshake with an alert",
        "flashpol probe HOST --tls says which clients can connect",
    ),
    "malformed": Failure(
        "the client sent bytes that are no TLS",
        "scanners do this; if there are many, a client or a proxy is set up for another protocol",
    ),
    "flood": Failure(
        "the client sent many messages without data",
        "no good client does this: deny_networks keeps its address out",
    ),
    "closed": Failure(
        "the client closed the connection during the handshake",
        "health checks and scanners do this, and clients that reject the certificate without an alert",
    ),
    "timeout": Failure(
        "the handshake was not complete within tls_handshake_timeout",
        "silent clients and scanners do this; if good clients are slow, raise tls_handshake_timeout",
    ),
    "capacity": Failure(
        "the handshake was evicted at max_handshakes, or memory was short",
        "raise max_handshakes, or add workers or hosts",
    ),
}


class Expiry(IntEnum):
    """How near the end of a certificate is."""

    FAR = 0
    EXPIRING = 1
    URGENT = 2
    EXPIRED = 3

    @classmethod
    def of(cls, not_after: float, now: float) -> "Expiry":
        left = not_after - now
        return cls((left < EXPIRING) + (left < URGENT) + (left <= 0))


def time_left(not_after: float, now: float) -> str:
    """ "in 12 days", "in 5 hours", "2 days ago"."""
    seconds = abs(not_after - now)
    units = (("day", DAY), ("hour", 3600), ("minute", 60))
    unit, length = next((each for each in units if seconds >= 2 * each[1]), units[-1])
    number = int(seconds // length)  # rounded down: "in 14 days" is never less than that
    words = f"{count(number)} {unit}{'s' if number != 1 else ''}"
    return f"in {words}" if not_after > now else f"{words} ago"


def shown_names(names: Sequence[str]) -> str:
    """The first names of a certificate, and how many more there are."""
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {count(more)} more" if more > 0 else "")


def attempts(counters: Json) -> int:
    """Handshakes that were completed and those that failed."""
    completed: int = sum(counters["handshakes"].values())
    return completed + failed(counters)


def failed(counters: Json) -> int:
    number: int = sum(counters["handshake_failures"].values())
    return number


def find_tls_problems(status: Json) -> Iterator[Problem]:
    """Of the certificates and the handshakes in the status document."""
    for certificate in status["certificates"]:
        yield from _of_expiry(certificate, certificate["not_after"], status["time"])
        for issuer in certificate["issuers"]:
            yield from _of_expiry(certificate, issuer["not_after"], status["time"], issuer["subject"])
    if status["minute"]:
        for each in status["minute"]["tls_listeners"]:
            yield from _of_handshakes(each)


def find_certificate_findings(certificates: "Sequence[CertificateFacts]", now: float) -> Iterator[Problem]:
    for each in certificates:
        findings = [*each.findings]
        if each.not_before > now:
            findings.append(f"{each.chain_file}: it is not valid before {date_time(each.not_before)}")
        if findings:
            yield Problem("certificate", WARNING, f'The certificate "{each.name}" has findings: {"; ".join(findings)}.')


def _of_expiry(certificate: Json, end: float, now: float, issuer: str = "") -> Iterator[Problem]:
    """issuer: the subject of the intermediate certificate whose end this is."""
    expiry, when = Expiry.of(end, now), f"{time_left(end, now)} ({date_time(end)})"
    names = shown_names(certificate["names"])
    which = f'The certificate "{certificate["name"]}"' + (f" of {names}" if names else "")
    advice = "renew it and reload"
    if issuer:
        which = f'The intermediate certificate {issuer} of the certificate "{certificate["name"]}"'
        advice = "get the chain from its issuer again and reload"
    if expiry is Expiry.EXPIRED:
        yield Problem("certificate-expired", ERROR, f"{which} expired {when}, and clients reject it: {advice}.")
    elif expiry is not Expiry.FAR:
        severity = ERROR if expiry is Expiry.URGENT else WARNING
        yield Problem("certificate-expiring", severity, f"{which} expires {when}: {advice}.")


def _of_handshakes(counters: Json) -> Iterator[Problem]:
    listener, whole = counters["listener"], attempts(counters)
    failures: dict[str, int] = counters["handshake_failures"]
    number, part = failed(counters), share(failed(counters), whole)
    if number >= FAILURES_OF and part >= FAILURES:
        reason = max(failures, key=failures.__getitem__)
        cause = HANDSHAKE_FAILURES[reason]
        message = (
            f"{percent(part)} of the TLS handshakes of {listener} failed in the last minute ({count(number)}), most "
            f"often for {reason} ({count(failures[reason])}): {cause.words}; {cause.advice}."
        )
        yield Problem("tls-handshakes", WARNING, message)
    number = failures["old_client"]
    if number >= OLD_CLIENTS_OF and share(number, whole) >= OLD_CLIENTS:
        message = (
            f"{count(number)} TLS clients of {listener} in the last minute offered only CBC cipher suites and were "
            f"refused: {HANDSHAKE_FAILURES['old_client'].advice}."
        )
        yield Problem("tls-old-clients", WARNING, message)
    number = counters["unknown_names"]
    if number >= UNKNOWN_NAMES_OF and share(number, whole) >= UNKNOWN_NAMES:
        message = (
            f"{count(number)} TLS clients of {listener} in the last minute asked for a name that no certificate has: "
            "add a certificate with that name, or correct the clients."
        )
        yield Problem("tls-unknown-names", WARNING, message)
