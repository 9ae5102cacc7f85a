"""RTMPT as Flash Player in a browser used it: the stream of a tunnel session, over connections that come and go.

>>> with FlashClient(server.place) as client:
...     client.send(b"hello")
...     client.receive_exactly(5)

The browser had two connections to a host. Requests go out on both, so a server sees them in another order than their
numbers; what comes back is put in the order of the numbers. A connection that ended is opened again, and its request is
sent once more with the same number, as browsers do. While there is nothing to send, one poll at a time is under way,
and the pause before the next one is what the last reply's interval byte says. There are never more numbers without a
reply than connections, so a server that keeps as many replies loses nothing when connections break.
"""

import random
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

from testkit.polling import DEADLINE
from testkit.rtmpt_client import Address, BadReply, Ended, Reply, RtmptClient

UNIT = 0.5 / 0x21  # seconds of the interval byte, whose largest value means half a second


class Refused(Exception):
    """The server ended the session, or did not open it: the reply."""

    def __init__(self, kind: str, reply: Reply) -> None:
        super().__init__(f"/{kind}: {reply}")
        self.reply = reply


class FlashClient:
    """lanes: connections. chunk: the most bytes of a /send. reorder: how many of a hundred requests wait until the next
    one was sent. tries: how often a request is sent, at most. pace: a factor of the pauses between polls. first: the
    first number. per_request, minor, absolute, host, empty, piece, tls, server_name, headers, source: see RtmptClient.
    """

    def __init__(
        self,
        address: Address,
        *,
        lanes: int = 2,
        chunk: int = 16384,
        reorder: int = 30,
        tries: int = 3,
        pace: float = 1.0,
        seed: int = 1,
        first: int = 1,
        per_request: bool = False,
        minor: int = 1,
        absolute: str = "",
        host: str = "",
        empty: bool = False,
        piece: int = 0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "localhost",
        headers: Iterable[tuple[str, str]] = (),
        source: str = "",
    ) -> None:
        self.chunk, self.reorder, self.tries, self.pace = chunk, reorder if lanes > 1 else 0, tries, pace
        # Each lane is a thread with connections of its own.
        self._lanes = [
            RtmptClient(
                address, per_request=per_request, minor=minor, absolute=absolute, host=host, empty=empty, piece=piece,
                tls=tls, server_name=server_name, headers=headers, source=source, reopen=True,
            ) for _ in range(lanes)
        ]  # fmt: skip
        self._random = random.Random(seed)
        self._changed = threading.Condition()
        self._outgoing = bytearray()
        self._incoming = bytearray()  # in order
        self._next = first  # the number of the next request
        self._deliver = first  # the number whose reply is next in the order
        self._replies: dict[int, bytes] = {}  # that came before their turn
        self._written: set[int] = set()
        self._polling = False
        self._late: int | None = None  # the number of the request that waits for the next one
        self._pause = 0.0
        self._error: BaseException | None = None
        self._stopped = False
        self._gone = False
        self.requests: dict[str, int] = {"send": 0, "idle": 0, "close": 0}
        self.repeated = 0  # requests that were sent once more
        self.swapped = 0  # requests that were sent after the one with the next number
        self.intervals: list[int] = []  # of all replies, in the order in which they came
        self._threads = [threading.Thread(target=self._run, args=(lane,), daemon=True) for lane in self._lanes]

    # ------------------------------------------------------------------------------------------------ for the caller

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if failed is None and not self._error:
            self.close()
        self.abandon()

    @property
    def id(self) -> str:
        return self._lanes[0].id

    @property
    def connected(self) -> int:
        """How many connections it made."""
        return sum(lane.connected for lane in self._lanes)

    def open(self) -> None:
        reply = self._lanes[0].open()
        if reply.status != 200 or not reply.body.endswith(b"\n") or not self.id:
            raise Refused("open", reply)
        for lane in self._lanes:
            lane.id = self.id
        for thread in self._threads:
            thread.start()

    def send(self, data: bytes) -> None:
        """Queue it; the lanes send it."""
        with self._changed:
            self._check()
            self._outgoing += data
            self._changed.notify_all()

    def receive_exactly(self, size: int, seconds: float = DEADLINE) -> bytes:
        """The next so many bytes; each wait for some of them ends after so many seconds."""
        parts = []
        with self._changed:
            while size:
                if not self._changed.wait_for(lambda: self._incoming or self._error, seconds):
                    raise TimeoutError(f"{size} bytes did not come within {seconds:g} s")
                if not self._incoming:
                    self._check()
                parts.append(bytes(self._incoming[:size]))
                del self._incoming[:size]
                size -= len(parts[-1])
        return b"".join(parts)

    def received_nothing_more(self) -> bool:
        with self._changed:
            return not self._incoming

    def close(self) -> None:
        """Send what is queued, then /close; its reply says that the session was there until then."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._error or not self._outgoing, DEADLINE):
                raise TimeoutError(f"{len(self._outgoing)} bytes were not sent")
        self._stop()
        self._check()
        before = self.repeated
        reply = self._exchange(self._lanes[0], "close", None, self._next)
        if reply.status != 200 and not (reply.status == 404 and self.repeated > before):  # the first one closed it
            raise Refused("close", reply)

    def abandon(self) -> None:
        """Close the connections at once, and not the session: the client is gone."""
        self._gone = True
        self._stop()
        for lane in self._lanes:
            lane.disconnect()

    def drop(self) -> None:
        """End all connections, but not the session, as when the browser's network changes."""
        for lane in self._lanes:
            for connection in list(lane.lanes.values()):
                with suppress(OSError):  # it has ended
                    connection.sock.shutdown(socket.SHUT_RDWR)  # this wakes the lane, which close() does not

    def _check(self) -> None:
        if self._error:
            raise self._error

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._gone:
            self.drop()
        for thread in self._threads:
            if thread.ident:
                thread.join(DEADLINE)
                assert not thread.is_alive(), "a request did not end"

    # ----------------------------------------------------------------------------------------------------- the lanes

    def _run(self, lane: RtmptClient) -> None:
        try:
            while request := self._take():
                kind, data, number = request
                if self._late == number:
                    self._wait_for_the_next(number)
                self._took(kind, number, self._exchange(lane, kind, data, number))
        except BaseException as error:
            with self._changed:
                self._error = self._error or error
                self._changed.notify_all()

    def _may_take(self) -> bool:
        return self._next < self._deliver + len(self._lanes) and bool(self._outgoing or not self._polling)

    def _take(self) -> tuple[str, bytes | None, int] | None:
        """The next request, as kind, body and number; None at the end."""
        with self._changed:
            while not self._is_over():
                if not self._may_take():
                    self._changed.wait()
                elif self._outgoing or not self._changed.wait_for(
                    lambda: self._outgoing or not self._may_take() or self._is_over(), self._pause
                ):
                    return self._taken()
        return None

    def _is_over(self) -> bool:
        return self._stopped or self._error is not None

    def _taken(self) -> tuple[str, bytes | None, int]:
        number, self._next = self._next, self._next + 1
        if not self._outgoing:
            self._polling = True
            return "idle", None, number
        data = bytes(self._outgoing[: self.chunk])
        del self._outgoing[: self.chunk]
        other_sends = bool(self._outgoing) and self._late is None and not self._polling
        if other_sends and self._random.randrange(100) < self.reorder:
            self._late = number
        self._changed.notify_all()
        return "send", data, number

    def _wait_for_the_next(self, number: int) -> None:
        """Until the other lane has sent the next request, or for a moment: the server waits longer than that."""
        with self._changed:
            self.swapped += self._changed.wait_for(lambda: number + 1 in self._written, 0.5)
            self._late = None

    def _exchange(self, lane: RtmptClient, kind: str, data: bytes | None, number: int) -> Reply:
        """Repeats the request on a new connection if the old one ended before the reply was complete."""
        self.requests[kind] += 1
        for _ in range(self.tries):
            try:
                lane.write(kind, data, number=number)
                with self._changed:
                    self._written.add(number)
                    self._changed.notify_all()
                return lane.read()
            except (Ended, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
                lane.drop()
                last = error
                self.repeated += 1
                if self._gone:
                    break
        raise last

    def _took(self, kind: str, number: int, reply: Reply) -> None:
        if reply.status != 200:
            raise Refused(f"{kind} {number}", reply)
        if reply.interval is None:
            raise BadReply(f"{kind} {number}: a 200 without an interval byte")
        with self._changed:
            self.intervals.append(reply.interval)
            self._replies[number] = reply.body
            while self._deliver in self._replies:
                self._incoming += self._replies.pop(self._deliver)
                self._written.discard(self._deliver)
                self._deliver += 1
            self._polling = self._polling and kind != "idle"
            self._pause = reply.interval * UNIT * self.pace
            self._changed.notify_all()
