"""What the reports say about a WebSocket: a row for each origin, in words and as fields."""

from collections.abc import Iterator
from typing import Any

from flashpol.probe.exchange import Exchange
from flashpol.probe.model import Observation, Target
from flashpol.probe.report.secure import described as described_tls
from flashpol.probe.websocket import frames, judgement
from flashpol.probe.websocket.upgrade import Upgrade, upgrade_of


def described(target: Target, observation: Observation) -> Iterator[str]:
    """Yield lines about the certificate, the origins, and what came after 101."""
    yield from described_tls(target, observation)
    if not target.asked.opened:
        return
    for origin in observation.question.origins:
        yield f"origin {origin}: {result(target, origin, observation)}"
    url = observation.question.websocket
    if url is not None and observation.question.origins == (url.origin,):
        yield "this is the origin of the URL's host; name another page with --origin"
    upgrade = upgrade_of(target.asked)
    if upgrade.opened:
        yield ", ".join(_after(upgrade))


def result(target: Target, origin: str, observation: Observation) -> str:
    """Return what a page of this origin gets."""
    exchange = judgement.asked_for(target, origin)
    if exchange is None:
        return "not asked"
    upgrade = upgrade_of(exchange)
    why = judgement.obstacle(target, origin, observation)
    took = "" if upgrade.seconds is None else f" after {upgrade.seconds:.3f} s"
    if not why:
        return f"allowed, 101{took}"
    if upgrade.head is not None and not upgrade.opened:
        return f"refused, {upgrade.head.line}{took}{f': {upgrade.words}' if upgrade.words else ''}"
    return f"refused: port {target.port} {why}"


def allowed(target: Target, observation: Observation) -> Iterator[tuple[str, bool]]:
    """Yield each origin that was asked for, and whether its pages get a WebSocket."""
    for origin in observation.question.origins:
        if judgement.asked_for(target, origin) is not None:
            yield origin, not judgement.obstacle(target, origin, observation)


def _after(upgrade: Upgrade) -> Iterator[str]:
    head = upgrade.head
    extensions = head.get("sec-websocket-extensions") if head is not None else ""
    yield f"extensions: {extensions or 'none'}"
    for name, kind in (("binary", frames.BINARY), ("text", frames.TEXT)):
        if came := upgrade.came.of_kind(kind):
            yield f"{len(came)} {name} frame{'s' * (len(came) != 1)} came"
    if upgrade.pong is not None:
        yield f"ping {upgrade.pong:.3f} s"
    elif upgrade.pinged:
        yield "no reply to a ping"


# ---------------------------------------------------------------------------------------------------------------- JSON


def fields(target: Target, observation: Observation) -> list[dict[str, Any]] | None:
    """Return the fields of each origin; None if no WebSocket was asked for."""
    if observation.question.websocket is None:
        return None
    return [
        {"origin": origin, "allowed": is_allowed, **_of_upgrade(judgement.asked_for(target, origin))}
        for origin, is_allowed in allowed(target, observation)
    ]


def _of_upgrade(exchange: Exchange | None) -> dict[str, Any]:
    upgrade = upgrade_of(exchange) if exchange is not None else Upgrade("", "")
    head = upgrade.head
    return {
        "status": None if head is None else head.status,
        "reason": None if head is None else head.reason,
        "seconds": None if upgrade.seconds is None else round(upgrade.seconds, 6),
        "server": None if head is None else head.get("server") or None,
        "via": None if head is None else head.get("via") or None,
        "extensions": None if head is None else head.get("sec-websocket-extensions") or None,
        "body": upgrade.words or None,
        "binary_frames": len(upgrade.came.of_kind(frames.BINARY)),
        "text_frames": len(upgrade.came.of_kind(frames.TEXT)),
        "ended": upgrade.how or None,
        "pong_seconds": None if upgrade.pong is None else round(upgrade.pong, 6),
    }
