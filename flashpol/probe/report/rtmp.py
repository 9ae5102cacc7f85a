"""What the reports say about the ways to a media server, in words and as fields."""

from collections.abc import Iterator
from typing import Any

from flashpol.probe.exchange import Exchange, What
from flashpol.probe.model import Observation, Role, Target
from flashpol.probe.report.secure import described as described_tls
from flashpol.probe.rtmp import judgement
from flashpol.probe.rtmp.attempt import Attempt, Outcome


def described(target: Target, observation: Observation) -> Iterator[str]:
    """Yield lines about the certificate, the way, and the application."""
    yield from described_tls(target, observation)
    found = judgement.verdict(target, observation)
    took = f", handshake after {found.seconds:.3f} s" if found.works else ""
    yield f"{target.way} {found.words}{took}"
    tried = judgement.attempt(target)
    if tried is None:
        return
    if tried.trips:
        requests, connections = len(tried.trips), tried.connections
        yield f"{requests} request{'s' * (requests != 1)}, {connections} connection{'s' * (connections != 1)}"
    if tried.connected is not None and tried.connected.outcome is Outcome.SUCCEEDED:
        yield f"the application accepts: {tried.connected.words or 'without a code'}"
    elif why := judgement.refusal(target):
        yield f"the server {why}"


def summary(observation: Observation) -> str:
    """Return the way that Flash Player takes, and its time, of the slowest address; empty if there is none."""
    found = [judgement.fallback(observation, address) for address in observation.targets]
    working = [one for one in found if one.works is not None]
    slowest = max(working, key=lambda one: one.seconds, default=None)
    if slowest is None or slowest.works is None:
        return ""
    return f"{slowest.works[0].way} works after {slowest.seconds:.2f} s"


def ends_by_the_probe(exchange: Exchange) -> bool:
    """Whether the probe closed a connection since it knew enough, and not since its time was over."""
    whats = [event.what for event in exchange.events if event.what is not What.ENDED]
    return bool(whats) and whats[-1] is What.RECEIVED


def ways(observation: Observation) -> Iterator[tuple[Target, judgement.Verdict]]:
    """Yield the ways of all addresses, with what is known about each."""
    for target in observation.all_targets(Role.RTMP):
        yield target, judgement.verdict(target, observation)


# ---------------------------------------------------------------------------------------------------------------- JSON


def fields(target: Target, observation: Observation) -> dict[str, Any] | None:
    """Return the fields of a way; None if RTMP was not asked for."""
    if target.way is None:
        return None
    found, tried = judgement.verdict(target, observation), judgement.attempt(target)
    return {
        "way": target.way.scheme,
        "port": target.way.port,
        "works": found.works,
        "reason": found.words,
        "seconds": round(found.seconds, 6),
        **_of_attempt(tried),
    }


def _of_attempt(tried: Attempt | None) -> dict[str, Any]:
    head = tried.head if tried is not None else None
    connected = tried.connected if tried is not None else None
    return {
        "status": None if head is None else head.status,
        "server": None if head is None else head.get("server") or None,
        "via": None if head is None else head.get("via") or None,
        "requests": None if tried is None or not tried.way.tunnelled else len(tried.trips),
        "connections": None if tried is None or not tried.way.tunnelled else tried.connections,
        "connect": None if connected is None else connected.outcome,
        "connect_says": None if connected is None else connected.words or None,
        "redirect": None if connected is None else connected.redirect or None,
    }
