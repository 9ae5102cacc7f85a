"""What the reports say about TLS: the certificate and the handshakes of a target, in words and as fields."""

from collections.abc import Iterator
from typing import Any

from flashpol.probe.exchange import Exchange
from flashpol.probe.model import Observation, Target
from flashpol.probe.tls import judgement
from flashpol.probe.tls.handshake import Handshake
from flashpol.probe.tls.offers import VERSIONS

_MAX_NAMES = 3


def described(target: Target, observation: Observation) -> Iterator[str]:
    """Yield lines about the certificate, and about what the server takes."""
    own = judgement.own_certificate(target)
    if own is not None:
        names = ", ".join(own.names[:_MAX_NAMES]) or own.subject
        more = f" and {len(own.names) - _MAX_NAMES} more" if len(own.names) > _MAX_NAMES else ""
        left = own.not_after - observation.time
        until = f"{judgement.duration(left)} left" if left >= 0 else f"expired {judgement.ago(-left)}"
        yield f"certificate for {names}{more}, until {judgement.day(own.not_after)} ({until})"
        count = len(judgement.certificates(target))
        yield f"{own.key}, by {own.issuer}; {count} certificate{'s' * (count != 1)} sent, {_trust(target)}"
    if target.handshake is not None and target.handshake.completed and (tried := target.tried.get("flash")):
        yield f"as AIR and Flash Player: {_result(tried[0])}"
    taken = [f"{name} {'yes' if one.completed else 'no'}" for name in VERSIONS if (one := target.tried_handshake(name))]
    if taken:
        yield f"versions: {', '.join(taken)}"


def _trust(target: Target) -> str:
    verification = target.verification
    if verification is None:
        return "not verified"
    return "trusted" if verification.completed else f"not trusted: {verification.verify_message}"


def _result(exchange: Exchange) -> str:
    handshake = exchange.tls
    if handshake is None:
        return exchange.error
    return handshake.words if handshake.completed else f"the server {judgement.refusal(exchange)}"


# ---------------------------------------------------------------------------------------------------------------- JSON


def handshake_fields(handshake: Handshake | None) -> dict[str, Any] | None:
    if handshake is None:
        return None
    return {
        "outcome": handshake.outcome,
        "seconds": round(handshake.ended, 4),
        "version": handshake.version or None,
        "suite": handshake.suite or None,
        "alert": handshake.alert,
        "error": handshake.error or handshake.verify_message or None,
        "close_notify": handshake.close_notify,
    }


def certificate_fields(target: Target) -> dict[str, Any] | None:
    own, verification = judgement.own_certificate(target), target.verification
    if own is None:
        return None
    return {
        "subject": own.subject,
        "issuer": own.issuer,
        "names": list(own.names),
        "not_before": own.not_before,
        "not_after": own.not_after,
        "key": own.key,
        "sha256": own.sha256,
        "sent": len(judgement.certificates(target)),
        "trusted": None if verification is None else verification.completed,
        "verify_code": None if verification is None else verification.verify_code,
    }
