"""One way as it is judged: what came of the connections that tried it. Nothing is sent here, no clock is read."""

import enum
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from flashpol.probe.exchange import End, Exchange, What
from flashpol.probe.reply import Kind as Bytes
from flashpol.probe.reply import Reply as Received
from flashpol.probe.rtmp import chunks
from flashpol.probe.rtmp.http import Reply, can_be_http
from flashpol.probe.rtmp.script import shakes_hands
from flashpol.probe.rtmp.tunnel import MAX_SESSION_ID, Trip, session_id, trips
from flashpol.probe.rtmp.url import Way
from flashpol.probe.websocket.reply import Head, first_words, read_head
from flashpol.probe.websocket.upgrade import time_of

_RTMPE = 6
_PASSWORD, _UPSTREAM = (401, 407), (502, 503, 504)
_PAGES = ("text/html", "application/xhtml+xml")


class Kind(enum.StrEnum):
    """What makes a way fail, once a connection was made."""

    WEB_SERVER = "web server"  # HTTP in reply to RTMP's handshake
    OTHER = "another protocol"
    SILENT = "silent"
    CLOSED = "closed"  # before anything came
    CUT = "cut"  # within the handshake
    UNREADABLE = "unreadable"  # HTTP without an end
    NO_TUNNEL = "no tunnel"  # a web server that knows no /open
    SESSION_ID = "session id"
    UPSTREAM = "upstream"
    PASSWORD = "password"
    REDIRECT = "redirect"
    LOST = "lost"  # the session was opened, and the next request does not find it
    NO_HANDSHAKE = "no handshake"  # through a tunnel that was opened


class Obstacle(NamedTuple):
    """`words` continue a sentence that begins with the way; `detail` is the part that a finding quotes."""

    kind: Kind
    words: str
    detail: str = ""


class Outcome(enum.StrEnum):
    """What came of `connect`."""

    SUCCEEDED = "succeeded"
    REJECTED = "rejected"
    CLOSED = "closed"
    SILENT = "silent"
    MALFORMED = "malformed"


class Connected(NamedTuple):
    """The reply to `connect`. `words` say what broke the protocol, or what the server says."""

    outcome: Outcome
    words: str = ""
    redirect: str = ""


class Attempt(NamedTuple):
    """`seconds` is the time until the handshake was complete, or until the way had failed.

    `obstacle` is None if the way works as far as the handshake. `connected` is None if no application was asked for.
    `head` is that of the first reply over HTTP, `trips` are the requests of a tunnel.
    """

    way: Way
    seconds: float
    obstacle: Obstacle | None = None
    echoed: bool = True
    connected: Connected | None = None
    head: Head | None = None
    trips: tuple[Trip, ...] = ()

    @property
    def replies(self) -> list[Reply]:
        return [trip.reply for trip in self.trips if trip.reply is not None]

    @property
    def connections(self) -> int:
        return 1 + max((trip.connection for trip in self.trips), default=0)


@lru_cache(maxsize=64)
def attempt_of(way: Way, exchanges: tuple[Exchange, ...]) -> Attempt:
    """Return what the connections of one way show. The first of them was opened."""
    return _through_tunnel(way, exchanges) if way.tunnelled else _directly(way, exchanges[0])


def _directly(way: Way, exchange: Exchange) -> Attempt:
    data = exchange.data
    sent = _sent(exchange)
    if not shakes_hands(data):
        obstacle = _no_rtmp(exchange)
        return Attempt(
            way, exchange.ended, obstacle, head=read_head(data) if obstacle.kind is Kind.WEB_SERVER else None
        )
    echoed = chunks.echoes(sent[0], data)
    asked = len(sent) > 1 and len(sent[1]) > chunks.HALF
    connected = _connected(data[chunks.HANDSHAKE :], ended=_has_ended(exchange)) if asked else None
    return Attempt(way, time_of(exchange, chunks.HANDSHAKE), None, echoed, connected)


def _sent(exchange: Exchange) -> list[bytes]:
    return [event.data for event in exchange.events if event.what is What.SENT]


def _has_ended(exchange: Exchange) -> bool:
    return exchange.end in (End.CLOSED, End.RESET, End.ABORTED)


_STARTS = {Bytes.POLICY: "a policy", Bytes.TLS: "TLS", Bytes.HTTP: "a page without a head"}


def _no_rtmp(exchange: Exchange) -> Obstacle:
    """Return why the handshake of RTMP itself failed."""
    data = exchange.data
    if data[:1] == bytes((chunks.VERSION,)):
        came = f"{len(data):,} of {chunks.HANDSHAKE:,} bytes of the handshake"
        how = "then closes" if _has_ended(exchange) else "and no more"
        return Obstacle(Kind.CUT, f"sends {came}, {how}", came)
    if data.startswith(b"HTTP/"):
        head = read_head(data)
        line = f"HTTP {head.line}" if head is not None else "HTTP"
        return Obstacle(Kind.WEB_SERVER, f"replies with {line}: a web server", line)
    return _no_reply(exchange) or _other(data, exchange)


def _no_reply(exchange: Exchange) -> Obstacle | None:
    if exchange.data:
        return None
    if not _has_ended(exchange):
        return Obstacle(Kind.SILENT, "accepts the connection, and nothing comes back")
    how = "closes" if exchange.end is End.CLOSED else "resets"
    return Obstacle(Kind.CLOSED, f"{how} the connection without a reply", how)


def _other(data: bytes, exchange: Exchange) -> Obstacle:
    what = _STARTS.get(Received.of(exchange).kind, "something else")
    if data[0] == _RTMPE:
        what = "RTMPE, the encrypted handshake"
    elif data[:1] == bytes((chunks.VERSION,)):
        what = "RTMP itself"
    elif data.startswith(_sent(exchange)[0][: len(data)]):
        what = "what it was sent"
    return Obstacle(Kind.OTHER, f"replies with {what}", what)


def _connected(data: bytes, *, ended: bool) -> Connected:
    """Return what the server made of `connect`, given what it sent after the handshake."""
    stream = chunks.Stream()
    try:
        for message in stream.feed(data):
            reply = chunks.reply_in(message)
            if reply is None:
                continue
            if reply.succeeded is None:
                return Connected(Outcome.CLOSED, "it says close")
            words = ": ".join(filter(None, (reply.code, reply.description)))
            rejected = not reply.succeeded or reply.code.rpartition(".")[2] not in ("", "Success")
            return Connected(Outcome.REJECTED if rejected else Outcome.SUCCEEDED, words, reply.redirect)
    except chunks.Malformed as error:
        return Connected(Outcome.MALFORMED, str(error))
    return Connected(Outcome.CLOSED if ended else Outcome.SILENT)


# -------------------------------------------------------------------------------------------------------- through HTTP


def _through_tunnel(way: Way, exchanges: Sequence[Exchange]) -> Attempt:
    made = trips(exchanges)
    came = b"".join(trip.carried for trip in made)
    head = made[0].reply.head if made and made[0].reply is not None else None
    if not shakes_hands(came):
        spent = sum(exchange.ended for exchange in exchanges)
        return Attempt(way, spent, _no_tunnel(made, came, exchanges[-1]), head=head, trips=made)
    hello = next(trip.request.body for trip in made if trip.request.command == "send")
    lasts = [trip.request.body for trip in made if trip.request.command == "send"][1:]
    asked = bool(lasts) and len(lasts[0]) > chunks.HALF
    lost = _lost(made)
    ended = lost is not None and (made[-1].reply is not None or _has_ended(exchanges[-1]))
    connected = _connected(came[chunks.HANDSHAKE :], ended=ended) if asked else None
    # After `connect` a session that is gone was closed because of it, as far as anything outside can see.
    obstacle = None if asked else lost
    return Attempt(way, _shaken_at(made), obstacle, chunks.echoes(hello, came), connected, head, made)


def _shaken_at(made: Sequence[Trip]) -> float:
    size = 0
    for trip in made:
        size += len(trip.carried)
        if size >= chunks.HANDSHAKE:
            return trip.at
    return made[-1].at


def _no_tunnel(made: Sequence[Trip], came: bytes, last: Exchange) -> Obstacle:
    """Return why no handshake came through a tunnel."""
    if not made or made[0].reply is None:
        if can_be_http(last.data) and last.data:
            return Obstacle(Kind.UNREADABLE, "replies to /open with HTTP that has no end, or cannot be read")
        return _no_reply(last) or _other(last.data, last)
    return _not_opened(made[0].reply) or _lost(made) or _no_handshake(came)


def _not_opened(reply: Reply) -> Obstacle | None:
    if not reply.found:
        return _refused(reply)
    if session_id(reply.body) and _type(reply) not in _PAGES:
        return None
    what = _no_session(reply)
    return Obstacle(Kind.SESSION_ID, f"replies to /open with {what} instead of a session id", what)


def _no_handshake(came: bytes) -> Obstacle:
    if came[:1] not in (b"", bytes((chunks.VERSION,))):
        return Obstacle(Kind.NO_HANDSHAKE, "carries something that is not RTMP", "something that is not RTMP")
    what = f"{len(came):,} of {chunks.HANDSHAKE:,} bytes of the handshake"
    return Obstacle(Kind.NO_HANDSHAKE, f"opens a session, and brings {what}", what)


def _refused(reply: Reply) -> Obstacle:
    line = reply.head.line
    words = first_words(reply.head, reply.head.size * b" " + reply.body)
    said = f"replies to /open with {line}{f': {words}' if words else ''}"
    if reply.head.status in _PASSWORD:
        return Obstacle(Kind.PASSWORD, said, line)
    if reply.head.status in _UPSTREAM:
        return Obstacle(Kind.UPSTREAM, said, line)
    if 300 <= reply.head.status < 400:
        return Obstacle(Kind.REDIRECT, said, line)
    return Obstacle(Kind.NO_TUNNEL, said, line)


def _type(reply: Reply) -> str:
    return reply.head.get("content-type").partition(";")[0].strip().lower()


def _no_session(reply: Reply) -> str:
    body = reply.body.strip()
    if not body:
        return "an empty body"
    if _type(reply) in _PAGES or body[:1] == b"<":
        return "a page of HTML"
    return f"{len(body):,} bytes, more than the {MAX_SESSION_ID} of a session id" if len(body) > MAX_SESSION_ID else (
        "something"
    )  # fmt: skip


def _lost(made: Sequence[Trip]) -> Obstacle | None:
    """Return the first request of an open session that was not served."""
    for trip in made[1:]:
        if trip.request.command == "close":
            continue
        if trip.reply is None:
            return Obstacle(
                Kind.LOST, f"opens a session, and does not reply to /{trip.request.command}", "no reply"
            )  # fmt: skip
        if not trip.reply.found:
            line = trip.reply.head.line
            return Obstacle(Kind.LOST, f"opens a session, and replies to /{trip.request.command} with {line}", line)
    return None
