"""RTMPT: the requests of one session, over as many connections as the replies ask for.

`Tunnel` knows which request is next, and gives each connection its turns. What came is read from the records of the
connections, by `trips`: nothing that a report says depends on the state in here.

Flash Player in a browser opens a connection whenever the last one was closed, and so does the probe.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from time import monotonic
from typing import NamedTuple

from flashpol.probe.exchange import End, Exchange, Script, Timeouts, Turn, What
from flashpol.probe.rtmp import chunks
from flashpol.probe.rtmp.http import Reply, can_be_http, read_reply
from flashpol.probe.rtmp.script import Awaited, shakes_hands
from flashpol.probe.rtmp.url import Place, Way
from flashpol.probe.websocket.upgrade import time_of

# Seconds for a whole session: Nagios gives a check ten.
WHOLE = 8.0
MAX_CONNECTIONS = 30
# Requests for what waits, until the handshake has come, and until the reply to `connect` has. Servers may hold them.
MAX_POLLS = 25
# Seconds before the next poll after one that brought nothing.
PAUSE = 0.1
# FMS, Red5 and nginx-rtmpt-proxy-module have 16 to 20 characters; clients have room for 31 to 63.
MAX_SESSION_ID = 31
_SESSION_ID = re.compile(rb"[!$&'()*+,.:;=@_~0-9A-Za-z-]+")
_HTTP_PORT, _HTTPS_PORT = 80, 443
_POST = re.compile(rb"POST (?:https?://[^/ ]+)?/(\w+)/([^ ]*) HTTP/1\.1\r\n(?:[^\r\n]+\r\n)*\r\n", re.S)


def session_id(body: bytes) -> str:
    """Return the id in the reply to /open; empty if it is none."""
    identifier = body.strip(b"\r\n")
    fits = len(identifier) <= MAX_SESSION_ID and _SESSION_ID.fullmatch(identifier)
    return identifier.decode() if fits else ""


class Request(NamedTuple):
    """`command` is one of open, send, idle and close; `rest` is what follows it in the path."""

    command: str
    rest: str
    body: bytes


class Trip(NamedTuple):
    """A request with its reply, None if it got none. Times are in seconds since the first connection began.

    `took` is the time from the request to the end of the reply, `connection` the number of the connection.
    """

    request: Request
    reply: Reply | None
    at: float
    took: float
    connection: int

    @property
    def carried(self) -> bytes:
        """The RTMP in the reply, without the polling interval before it."""
        carries = self.request.command in ("send", "idle") and self.reply is not None and self.reply.found
        return self.reply.body[1:] if carries and self.reply is not None else b""


class Tunnel:
    """One session."""

    def __init__(self, place: Place, way: Way, timeouts: Timeouts) -> None:
        self._place = place
        self._way = way
        self._timeouts = timeouts
        self._deadline = monotonic() + WHOLE
        self._plan = self._requests()
        self._next: Request | None = next(self._plan)
        self._pause = False
        self._replies = 0
        self._size = 0  # of the replies on this connection
        self._failed = False

    def has_more(self, exchange: Exchange, connections: int) -> bool:
        """Whether another connection may go on where this one ended. Call it for each connection."""
        came = self._size > 0
        if exchange.end is End.FLOOD:
            return False
        if not self._failed and exchange.end is End.CLOSED:
            self._take(exchange.data, ended=True)
        late = monotonic() >= self._deadline or connections >= MAX_CONNECTIONS
        return self._next is not None and not self._failed and not late and (came or self._size > 0)

    def connection(self) -> Script:
        """Return the turns of one more connection."""
        self._size = 0
        return self._turns()

    def _turns(self) -> Script:
        while self._next is not None:
            if self._pause:
                yield Turn(b"", lambda _: False, PAUSE)
            seconds = min(self._timeouts.reply, self._deadline - monotonic())
            data = yield Turn(self._written(self._next), self._is_complete, seconds)
            reply = self._take(data)
            if reply is None:
                self._failed = True
            if reply is None or reply.closes:
                return

    def _is_complete(self, data: bytes) -> bool:
        """Whether the next reply came, or something that is not HTTP."""
        rest = data[self._size :]
        return bool(rest) and (read_reply(rest) is not None or not can_be_http(rest))

    def _take(self, data: bytes, *, ended: bool = False) -> Reply | None:
        rest = data[self._size :]
        reply = read_reply(rest, ended=ended)
        if reply is not None and self._next is not None:
            self._size += reply.size
            try:
                self._next = self._plan.send(reply)
            except StopIteration:
                self._next = None
        return reply

    def _written(self, request: Request) -> bytes:
        default = _HTTPS_PORT if self._way.secure else _HTTP_PORT
        authority = self._place.authority(self._way.port, default)
        root = f"http://{authority}" if self._place.proxy is not None else ""
        head = (
            f"POST {root}/{request.command}/{request.rest} HTTP/1.1\r\n"
            f"Host: {authority}\r\n"
            "User-Agent: Shockwave Flash\r\n"
            "Accept: */*\r\n"
            "Content-Type: application/x-fcs\r\n"
            f"Content-Length: {len(request.body)}\r\n"
            "Connection: Keep-Alive\r\n"
            "Cache-Control: no-cache\r\n\r\n"
        )
        return head.encode() + request.body

    def _requests(self) -> Generator[Request, Reply, None]:
        """The session, request by request."""
        reply = yield Request("open", "1", b"\0")
        identifier = session_id(reply.body) if reply.found else ""
        if not identifier:
            return
        numbers = iter(range(1, 1000))

        def ask(command: str, body: bytes = b"\0") -> Request:
            return Request(command, f"{identifier}/{next(numbers)}", body)

        came = b""
        reply = yield ask("send", chunks.greeting())
        for polls in range(MAX_POLLS):
            came += reply.body[1:]
            self._pause = polls > 0 and len(reply.body) <= 1
            if not reply.found or (came and came[0] != chunks.VERSION) or len(came) >= chunks.HANDSHAKE:
                break
            reply = yield ask("idle")
        self._pause = False
        if reply.found and shakes_hands(came):
            last, application = chunks.acknowledgement(came), self._place.application
            more = chunks.connect(application, self._place.url(self._way)) if application else b""
            awaited = Awaited(chunks.HANDSHAKE)
            reply = yield ask("send", last + more)
            for polls in range(MAX_POLLS if application else 0):
                came += reply.body[1:]
                self._pause = polls > 0 and len(reply.body) <= 1
                if not reply.found or awaited(came):
                    break
                reply = yield ask("idle")
            self._pause = False
            if reply.found:
                reply = yield ask("idle")  # nothing waits now: does the server hold a poll?
        if reply.found:
            yield ask("close")


def trips(exchanges: Sequence[Exchange]) -> tuple[Trip, ...]:
    """Return the requests of all connections of one session; one that was repeated counts once."""
    found: list[Trip] = []
    before = 0.0
    for number, exchange in enumerate(exchanges):
        if found and found[-1].reply is None:
            found.pop()
        found += _of_connection(exchange, number, before)
        before += exchange.ended
    return tuple(found)


def _of_connection(exchange: Exchange, number: int, before: float) -> Iterator[Trip]:
    data, at = exchange.data, 0
    for event in exchange.events:
        if event.what is not What.SENT or (match := _POST.match(event.data)) is None:
            continue
        request = Request(match[1].decode(), match[2].decode(), event.data[match.end() :])
        reply = read_reply(data[at:], ended=exchange.end is End.CLOSED)
        if reply is None:
            yield Trip(request, None, before + event.at, exchange.ended - event.at, number)
            return
        at += reply.size
        replied = time_of(exchange, at)
        yield Trip(request, reply, before + replied, replied - event.at, number)
