"""What is wrong with a server's TLS, for which client. Nothing is sent here, and no clock is read.

A certificate may be wrong in several ways at the same time. OpenSSL reports the first that it finds, so its verdict
decides only whether the chain leads to a CA that this machine knows; names, times and keys are judged by the fields of
the certificate. OpenSSL builds the chain before it looks at times: a chain that it calls expired is trusted otherwise.
"""

import enum
from collections.abc import Iterator
from itertools import pairwise
from time import gmtime, strftime
from typing import NamedTuple

from flashpol.probe.exchange import Exchange
from flashpol.probe.model import Observation, Target
from flashpol.probe.tls import x509
from flashpol.probe.tls.handshake import Handshake, Outcome
from flashpol.probe.tls.offers import OLD_VERSIONS
from flashpol.probe.tls.x509 import Certificate

DAY = 86_400
EXPIRES_SOON = 14 * DAY  # seconds

# OpenSSL's X509_V_ERR numbers.
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN = 18, 19
_NO_ISSUER = (2, 20, 21)


class Flaw(enum.StrEnum):
    """What keeps every client that checks certificates from connecting."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    NAME = "name"
    INCOMPLETE = "incomplete"
    SELF_SIGNED = "self-signed"
    UNKNOWN_CA = "unknown CA"
    EXPIRED_ISSUER = "expired issuer"
    REJECTED = "rejected"


# What SecureSocket.serverCertificateStatus says then: constants of Adobe's class CertificateStatus.
STATUS = {
    Flaw.EXPIRED: "expired",
    Flaw.NOT_YET_VALID: "notYetValid",
    Flaw.NAME: "principalMismatch",
    Flaw.INCOMPLETE: "untrustedSigners",
    Flaw.SELF_SIGNED: "untrustedSigners",
    Flaw.UNKNOWN_CA: "untrustedSigners",
    Flaw.EXPIRED_ISSUER: "invalidChain",
    Flaw.REJECTED: "invalid",
}


# What Chromium says on the page of a failed connection, and in the console about a WebSocket.
CHROMIUM = {
    Flaw.EXPIRED: "net::ERR_CERT_DATE_INVALID",
    Flaw.NOT_YET_VALID: "net::ERR_CERT_DATE_INVALID",
    Flaw.NAME: "net::ERR_CERT_COMMON_NAME_INVALID",
    Flaw.INCOMPLETE: "net::ERR_CERT_AUTHORITY_INVALID",
    Flaw.SELF_SIGNED: "net::ERR_CERT_AUTHORITY_INVALID",
    Flaw.UNKNOWN_CA: "net::ERR_CERT_AUTHORITY_INVALID",
    Flaw.EXPIRED_ISSUER: "net::ERR_CERT_DATE_INVALID",
    Flaw.REJECTED: "net::ERR_CERT_INVALID",
}


def reported(flaw: Flaw, observation: Observation) -> str:
    """Return what the content's user, or its developer, can see of a flaw."""
    if observation.question.websocket is not None:
        return f"Chromium says `{CHROMIUM[flaw]}`"
    if observation.question.rtmp is not None:
        return "Flash Player and browsers refuse it; ffmpeg and rtmpdump do not look"
    return f"SecureSocket reports `{STATUS[flaw]}`"


class Problem(NamedTuple):
    """`words` continue a sentence that begins with the port."""

    flaw: Flaw
    words: str
    certificate: Certificate


def own_certificate(target: Target) -> Certificate | None:
    """Return the server's own certificate, if a handshake showed it and it can be read."""
    chain = certificates(target)
    return chain[0] if chain else None


def certificates(target: Target) -> tuple[Certificate, ...]:
    """Return the certificates as the server sent them, without those that cannot be read; none if its own cannot."""
    sent = [x509.read(data) for data in _sent(target)]
    return tuple(one for one in sent if one is not None) if sent and sent[0] is not None else ()


def _sent(target: Target) -> tuple[bytes, ...]:
    for exchange in (target.asked, *target.history):
        if exchange.tls is not None and exchange.tls.chain:
            return exchange.tls.chain
    return ()


def first_of(handshake: Handshake) -> Certificate | None:
    """Return the server's own certificate as a handshake showed it."""
    return x509.read(handshake.chain[0]) if handshake.chain else None


def path(chain: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """Return the server's own certificate and its issuers, as far as they were sent, in whatever order."""
    found = list(chain[:1])
    rest = list(chain[1:])
    while found and not found[-1].self_issued:
        issuer = next((one for one in rest if one.subject_der == found[-1].issuer_der), None)
        if issuer is None:
            break
        rest.remove(issuer)
        found.append(issuer)
    return tuple(found)


def is_in_order(chain: tuple[Certificate, ...]) -> bool:
    """Whether each certificate is followed by that of its issuer, as RFC 5246 requires."""
    return all(one.issuer_der == other.subject_der for one, other in pairwise(chain))


def problems(target: Target, observation: Observation) -> Iterator[Problem]:
    """Yield what is wrong with a certificate: its times, its name, its chain."""
    chain, verification = certificates(target), target.verification
    if not chain:
        if verification is not None and verification.verify_code:
            yield _rejected(verification, x509.UNREADABLE)
        return
    own, now = chain[0], observation.time
    if now > own.not_after:
        yield Problem(Flaw.EXPIRED, f"has a certificate that expired {ago(now - own.not_after)}", own)
    elif now < own.not_before:
        words = f"has a certificate that is not valid until {moment(own.not_before)}"
        yield Problem(Flaw.NOT_YET_VALID, words, own)
    if not own.is_for(observation.name):
        yield Problem(Flaw.NAME, f"has a certificate that is not for {observation.name}", own)
    if verification is not None and verification.verify_code:
        yield from _chain_problems(verification, chain, observation)


def _chain_problems(
    verification: Handshake, chain: tuple[Certificate, ...], observation: Observation
) -> Iterator[Problem]:
    own, code, now = chain[0], verification.verify_code, observation.time
    issuers = path(chain)
    if code == _SELF_SIGNED:
        yield Problem(Flaw.SELF_SIGNED, "has a self-signed certificate", own)
    elif code in _NO_ISSUER and len(issuers) == 1 and (own.issuer_url or observation.question.ca):
        yield Problem(Flaw.INCOMPLETE, f"does not send the certificate of {own.issuer}, which issued its own", own)
    elif code in _NO_ISSUER or code == _SELF_SIGNED_IN_CHAIN:
        words = f"has a certificate of a CA that clients do not know, {issuers[-1].issuer}"
        yield Problem(Flaw.UNKNOWN_CA, words, issuers[-1])
    elif code in (_EXPIRED, _NOT_YET_VALID):
        if own.not_before <= now <= own.not_after:
            invalid = (one for one in issuers[1:] if not one.not_before <= now <= one.not_after)
            issuer = next(invalid, None)
            whose = issuer.subject if issuer else f"a CA above {issuers[-1].issuer}"
            yield Problem(
                Flaw.EXPIRED_ISSUER, f"has a chain with a certificate out of date, {whose}", issuer or issuers[-1]
            )
    else:
        yield _rejected(verification, own)


def _rejected(verification: Handshake, certificate: Certificate) -> Problem:
    return Problem(Flaw.REJECTED, f"has a certificate that is rejected: {verification.verify_message}", certificate)


def weaknesses(target: Target) -> list[str]:
    """Return what is weak about the server's own certificate and the issuers that it sent."""
    found = []
    for certificate in path(certificates(target)):
        if certificate.weak_key:
            found.append(f"{certificate.subject} has a key of kind {certificate.key}")
        if certificate.weak_hash and not certificate.self_issued:  # of a root the signature does not count
            found.append(f"{certificate.subject} is signed with {certificate.weak_hash}")
    return found


def refusal(exchange: Exchange) -> str:
    """Return why a handshake failed, in words that continue a sentence that begins with the port."""
    handshake = exchange.tls
    assert handshake is not None
    match handshake.outcome:
        case Outcome.ALERT:
            return f"refuses the TLS handshake with alert {handshake.alert} ({handshake.alert_name})"
        case Outcome.CLOSED:
            return "closes the connection during the TLS handshake"
        case Outcome.RESET:
            return "resets the connection during the TLS handshake"
        case Outcome.TIMEOUT:
            return "does not complete the TLS handshake"
        case Outcome.NOT_TLS:
            return "does not speak TLS"
        case _:
            return f"fails in the TLS handshake: {handshake.error or handshake.verify_message}"


def obstacle(target: Target, client: str, observation: Observation) -> str:
    """Return why a client gets no connection inside TLS, in words that continue a sentence that begins with the port.

    Empty if it gets one.
    """
    handshake = target.handshake
    if handshake is None:
        return ""
    if not handshake.completed:
        return refusal(target.asked)
    if client == "browser" and handshake.version in OLD_VERSIONS:
        return f"takes nothing newer than {handshake.version}"
    if client != "browser" and (reason := too_modern(target)):
        return reason
    return next((problem.words for problem in problems(target, observation)), "")


def too_modern(target: Target) -> str:
    """Return why the server takes no handshake of AIR's and Flash Player's; empty if it takes one."""
    tried = next(iter(target.tried.get("flash", ())), None)
    if tried is None or tried.tls is None or tried.tls.completed:
        return ""
    return f"does not take TLS 1.2 with CBC suites, all that AIR and Flash Player offer: it {refusal(tried)}"


def ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """Return a time in days, or in hours if it is less than two."""
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:,.0f} days"
    hours = round(seconds / 3600)
    return f"{hours} hour{'s' if hours != 1 else ''}"


def moment(time: float) -> str:
    """Return a Unix time as a date and a time in UTC."""
    try:
        return strftime("%Y-%m-%d %H:%M UTC", gmtime(time))
    except (ValueError, OverflowError, OSError):
        return "an impossible time"


def day(time: float) -> str:
    return moment(time)[:10]
