"""Why a way fails, what Flash Player's fallback costs, what of a tunnel breaks other clients. Nothing is sent here."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from flashpol.probe.exchange import Address, Exchange, Reached
from flashpol.probe.model import Observation, Role, Target
from flashpol.probe.reply import printable
from flashpol.probe.rtmp.attempt import Attempt, Kind, Outcome, attempt_of
from flashpol.probe.rtmp.http import Reply
from flashpol.probe.rtmp.url import Place
from flashpol.probe.tls.judgement import obstacle as obstacle_of_tls
from flashpol.probe.websocket.reply import Head

# Seconds after which Windows gives up a connection that gets no answer; Flash Player leaves it to the system. Users of
# BigBlueButton waited for more than a minute until RTMPT: issues 884 and 1338.
DROPPED = 21.0
# Seconds in which a server that holds no polls replies to one.
AT_ONCE = 0.02
_NOT_REACHED = {
    Reached.REFUSED: "refuses the connection",
    Reached.DROPPED: "is dropped: nothing comes back",
    Reached.UNREACHABLE: "cannot be reached",
    Reached.UNTRIED: "could not be tried from here",
}


class Verdict(NamedTuple):
    """What one way is like. `words` continue a sentence that begins with the way.

    `works` is None if nothing is known. `seconds` is what Flash Player spends on it.
    """

    works: bool | None
    words: str
    seconds: float


class Fallback(NamedTuple):
    """What Flash Player does at one address: the ways that fail before the one that works, if there is one."""

    failed: tuple[tuple[Target, Verdict], ...]
    works: tuple[Target, Verdict] | None

    @property
    def seconds(self) -> float:
        """Until the first way that works has its handshake, or until all have failed."""
        last = self.works[1].seconds if self.works is not None else 0.0
        return sum(verdict.seconds for _, verdict in self.failed) + last


def exchanges(target: Target) -> tuple[Exchange, ...]:
    """Return all connections of a way, in order."""
    return (target.asked, *target.tried.get("more connections", ()))


def attempt(target: Target) -> Attempt | None:
    """Return what came of a way; None without a connection."""
    if target.way is None or not target.asked.opened:
        return None
    return attempt_of(target.way, exchanges(target))


def verdict(target: Target, observation: Observation) -> Verdict:
    asked = target.asked
    if asked.reached is not Reached.CONNECTED:
        seconds = DROPPED if asked.reached is Reached.DROPPED else asked.ended
        return Verdict(None if asked.reached is Reached.UNTRIED else False, _NOT_REACHED[asked.reached], seconds)
    if why := obstacle_of_tls(target, "flash", observation):
        return Verdict(False, why, asked.tls.ended if asked.tls is not None else asked.ended)
    tried = attempt(target)
    if tried is None:
        return Verdict(False, "has no connection", asked.ended)
    if tried.obstacle is not None:
        return Verdict(False, tried.obstacle.words, tried.seconds)
    through = f" through {tried.connections} connections" if tried.connections > 1 else ""
    return Verdict(True, f"works{through}", tried.seconds)


def verdicts(observation: Observation, address: Address) -> list[tuple[Target, Verdict]]:
    """Return the ways of one address, in the order of Flash Player."""
    targets = observation.targets.get(address, ())
    return [(target, verdict(target, observation)) for target in targets if target.role is Role.RTMP]


def fallback(observation: Observation, address: Address) -> Fallback:
    failed: list[tuple[Target, Verdict]] = []
    for target, found in verdicts(observation, address):
        if found.works:
            return Fallback(tuple(failed), (target, found))
        failed.append((target, found))
    return Fallback(tuple(failed), None)


def refusal(target: Target) -> str:
    """Return why the server does not accept `connect`, in words that continue a sentence that begins with the way.

    Empty if it does, or if no application was asked for.
    """
    tried = attempt(target)
    if tried is None or tried.obstacle is not None or tried.connected is None:
        return ""
    words = tried.connected.words
    match tried.connected.outcome:
        case Outcome.REJECTED:
            return f"rejects the application: {words or 'it gives no reason'}"
        case Outcome.CLOSED:
            return f"closes instead of a reply to connect{f': {words}' if words else ''}"
        case Outcome.SILENT:
            return "sends no reply to connect"
        case Outcome.MALFORMED:
            return f"breaks the protocol after the handshake: {words}"
        case _:
            return ""


# ------------------------------------------------------------------------------------------------------------- tunnels


def served(tried: Attempt) -> Iterator[Reply]:
    """Yield the replies of a tunnel that carried something, or that might have."""
    yield from (reply for reply in tried.replies if reply.found)


def closes(tried: Attempt) -> bool:
    """Whether the connection ended after each reply, although the requests asked to keep it."""
    return tried.connections > 1 and all(
        later.connection > trip.connection for trip, later in zip(tried.trips, tried.trips[1:], strict=False)
    )


def at_once(tried: Attempt) -> float | None:
    """Return how long a poll took that brought nothing and was not held; None if each was held, or none was tried."""
    took = [
        trip.took
        for trip in tried.trips
        if trip.request.command == "idle" and trip.reply is not None and trip.reply.found and not trip.carried
    ]
    return min(took) if took and min(took) < AT_ONCE else None


_LINES = 'proxy_pass http://HOST:PORT; proxy_http_version 1.1; proxy_set_header Connection "";'
# What a reply says about the programs that it passed -> what they need to carry RTMPT.
_PROGRAMS: tuple[tuple[str, str], ...] = (
    (
        r"nginx|openresty|tengine",
        f"in nginx `location ~ ^/(open|send|idle|close|fcs)/ {{ {_LINES} }}`",
    ),
    (r"apache(?!-coyote)", 'in Apache `ProxyPassMatch "^/(open|send|idle|close|fcs)/" "http://HOST:PORT"`'),
    (r"microsoft-iis|\barr/", "in IIS a rewrite rule of ARR for these paths"),
    (r"varnish", "in Varnish `return (pass)` for these paths"),
    (r"tinyproxy", "tinyproxy closes each connection, so only Flash Player gets through it"),
    (r"squid", "squid passes RTMPT on if `http_access` and the port allow it"),
    (r"cloudflare", "a content network needs these paths without cache and without buffering"),
)
_SAYS = ("server", "via", "x-squid-error", "x-cache", "x-varnish", "cf-ray", "x-powered-by")


def hint(tried: Attempt) -> str:
    """Return what the program that the first reply names needs; empty if it names none that is known."""
    if tried.head is None:
        return ""
    text = " ".join(f"{name}={value}" for name, value in tried.head.fields if name in _SAYS)
    return "; ".join(words for pattern, words in _PROGRAMS if re.search(pattern, text, re.I))


def refused_by_proxy(head: Head | None, place: Place | None) -> bool:
    """Whether a proxy on the way refused a request by itself, and no server behind it."""
    if head is None:
        return False
    asked = place is not None and place.proxy is not None
    return bool(head.get("x-squid-error")) or (asked and head.status in (400, 403, 405, 501))


def quoted(tried: Attempt, data: bytes = b"") -> str:
    """Return as evidence the status and the programs of a reply over HTTP, or else the bytes that came."""
    head = tried.head
    if head is None:
        return printable(data) if data else f"no byte in {tried.seconds:.2f} s"
    said = [f"{head.version} {head.line}"]
    said += [f"{name.title()}: {head.get(name)}" for name in ("server", "via", "content-type") if head.get(name)]
    return "; ".join(said)


__all__ = [
    "AT_ONCE", "DROPPED", "Fallback", "Kind", "Outcome", "Verdict", "at_once", "attempt", "closes", "exchanges",
    "fallback", "hint", "quoted", "refusal", "refused_by_proxy", "served", "verdict", "verdicts",
]  # fmt: skip
