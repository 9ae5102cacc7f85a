"""Targets of tunnel sessions: requests of several connections, whose bytes are interleaved, and messages on a line.

What must hold is said by `Model`: it reads what has come on each connection so far, and knows what the upstream must
have got by then, and what was replied on each connection. It has no deadlines, and neither has the worker here.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from fuzz.tunnel_worker import CAPACITY, TunnelWorker, received

CONNECTIONS = 3
WINDOW = 16
KINDS = ("send", "idle", "close")
INTERVALS = b"\x01\x03\x05\x09\x11\x21"
EMPTIES = 10  # replies at each
KEPT = 2  # replies
MOST_DATA = 200  # bytes of a request or of the upstream, so that one read has all of them
MOST_STEPS = 150


@dataclass(eq=False)
class Request:
    kind: str
    number: int | None
    body: bytes
    connection: "Connection"


@dataclass(eq=False)
class Connection:
    """replies: statuses and bodies. hurries: more has come behind the request under way, or FIN."""

    input: bytes = b""
    under_way: Request | None = None
    hurries: bool = False
    closed: bool = False  # by the client
    refused: bool = False  # nothing more is read on it
    replies: list[tuple[int, bytes]] = field(default_factory=list)


class Model:
    """One session and its connections."""

    def __init__(self) -> None:
        self.connections = [Connection() for _ in range(CONNECTIONS)]
        self.upstream = bytearray()  # what it must have got
        self.waiting = bytearray()  # what it has sent, and no request has asked for
        self.over = False
        self.upstream_closed = False
        self.expected: int | None = None
        self.asking: Request | None = None
        self.early: dict[int, Request] = {}
        self.others: dict[int, Request] = {}  # the same requests on the connections that they came on before
        self.kept: dict[int, bytes] = {}  # the last replies, by number
        self.empties = 0

    # ------------------------------------------------------------------------------------------------------ replies

    def reply(self, request: Request, status: int, body: bytes = b"") -> None:
        connection = request.connection
        connection.under_way = None
        connection.replies.append((status, body))

    def answer(self, data: bytes = b"") -> None:
        """The request that asks gets its reply."""
        if not (request := self.asking):
            return
        self.asking = None
        step = min(self.empties // EMPTIES, len(INTERVALS) - 1)
        self.empties = 0 if data else self.empties + 1
        body = INTERVALS[:1] + data if data else INTERVALS[step : step + 1]
        assert self.expected is not None
        self.kept[self.expected - 1] = body
        self.kept = {number: self.kept[number] for number in sorted(self.kept)[-KEPT:]}
        self.reply(request, 200, body)

    def take(self) -> None:
        """Give what the upstream has sent, or its end, to the request that asks."""
        if self.asking and self.waiting:
            data, self.waiting = bytes(self.waiting), bytearray()
            self.answer(data)
        elif self.asking and self.upstream_closed:
            self.end()
        elif self.asking and self.asking.connection.hurries:
            self.answer()

    def end(self) -> None:
        """The session is over: what waits gets 404, in the order of the numbers."""
        self.over = True
        requests = [self.asking, *self.early.values(), *self.others.values()]
        self.asking, self.early, self.others = None, {}, {}
        for request in requests:
            if request:
                self.reply(request, 404)

    # ----------------------------------------------------------------------------------------------------- requests

    def carry_out(self, request: Request, number: int) -> None:
        self.answer()
        self.expected = number + 1
        if request.kind == "close":
            self.close(request)
            return
        self.asking = request
        if request.kind == "send":
            self.upstream += request.body
        self.take()
        if request.kind == "send":
            self.answer()

    def close(self, request: Request) -> None:
        self.answer()
        self.end()
        self.reply(request, 200, b"\0")

    def carry_out_early(self) -> None:
        while not self.over and self.expected in self.early:
            number = self.expected
            other = self.others.pop(number, None)
            self.carry_out(self.early.pop(number), number)
            if other:
                self.answer_once_more(other, number)

    def answer_once_more(self, request: Request, number: int) -> None:
        """Reply to a copy of a request that was carried out: as to that, or nothing if that reply is not kept."""
        assert self.expected is not None
        if self.over and request.kind == "close":
            self.reply(request, 200, b"\0")
        elif self.over and number not in self.kept:
            self.reply(request, 404)
        elif number == self.expected - 1 and self.asking:
            self.answer()
            self.reply(request, 200, self.kept[number])
        else:
            self.reply(request, 200, self.kept.get(number, INTERVALS[:1]))

    def on_request(self, request: Request) -> None:
        number = request.number
        if self.over:
            self.reply(request, 404)
        elif number is None:
            if request.kind != "close":
                self.reply(request, 404)
                return
            while self.early and not self.over:
                self.expected = min(self.early)
                self.carry_out_early()
            if self.over:
                self.reply(request, 404)
            else:
                self.close(request)
        else:
            self.expected = number if self.expected is None else self.expected
            self.on_number(request, number)

    def on_number(self, request: Request, number: int) -> None:
        assert self.expected is not None
        if number > self.expected:
            if earlier := self.early.get(number):
                if other := self.others.get(number):
                    self.reply(other, 503)
                self.others[number] = earlier
                self.early[number] = Request(earlier.kind, number, earlier.body, request.connection)
                request.connection.under_way = self.early[number]
            elif len(self.early) == WINDOW:
                self.reply(request, 503)
            else:
                self.early[number] = request
        elif number == self.expected:
            self.carry_out(request, number)
            self.carry_out_early()
        else:
            self.answer_once_more(request, number)

    # -------------------------------------------------------------------------------------------------------- bytes

    def hurry(self, connection: Connection) -> None:
        """More has come on it: a poll is held no longer."""
        connection.hurries = True
        if self.asking and self.asking.connection is connection:
            self.answer()

    def receive(self, connection: Connection, data: bytes) -> None:
        connection.input += data
        if connection.under_way:
            self.hurry(connection)
        self.go_on()

    def client_closes(self, connection: Connection) -> None:
        connection.closed = True
        if connection.under_way:
            self.hurry(connection)
        self.go_on()

    def upstream_sends(self, data: bytes) -> None:
        self.waiting += data
        self.take()
        self.go_on()

    def upstream_closes(self) -> None:
        self.upstream_closed = True
        self.take()
        self.go_on()

    def go_on(self) -> None:
        """Carry out what is complete, as long as there is something."""
        while sum(self.next_request(connection) for connection in self.connections):
            pass

    def next_request(self, connection: Connection) -> bool:
        if connection.under_way or connection.refused:
            return False
        head, end, rest = connection.input.partition(b"\r\n\r\n")
        if not end:
            return False
        first, *fields = head.decode().split("\r\n")
        size = int(fields[-1].removeprefix("Content-Length: "))
        if len(rest) < size:
            return False
        connection.input = rest[size:]
        _, kind, _, *number = first.split()[1].split("/")
        request = Request(kind, int(number[0]) if number else None, rest[:size], connection)
        connection.under_way = request
        connection.hurries = False
        self.on_request(request)
        if connection.under_way and (connection.input or connection.closed):
            self.hurry(connection)
        return True


# -------------------------------------------------------------------------------------------------------------- the run


def request(kind: str, session: str, number: int | None, body: bytes) -> bytes:
    path = f"/{kind}/{session}" + ("" if number is None else f"/{number}")
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def left(before: bytes, data: bytes) -> int:
    """How many bytes of `data` complete the request that `before` begins; all if they do not."""
    head, end, _ = (before + data).partition(b"\r\n\r\n")
    if not end:
        return len(data)
    size = int(head.rpartition(b" ")[2])
    return max(0, len(head) + len(end) + size - len(before))


def replies_of(wire: bytes) -> list[tuple[int, bytes]]:
    """All replies; there must be nothing behind them."""
    found = []
    while wire:
        head, end, rest = wire.partition(b"\r\n\r\n")
        assert end, "a reply is not complete"
        lines = head.decode().split("\r\n")
        [size] = [int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")]
        found.append((int(lines[0].split()[1]), rest[:size]))
        assert len(rest) >= size, "a reply is not complete"
        wire = rest[size:]
    return found


class Trial:
    """The worker and the model, step by step."""

    def __init__(self, worker: TunnelWorker) -> None:
        self.worker, self.model = worker, Model()
        self.sockets: list[socket.socket | None] = [worker.connect() for _ in range(CONNECTIONS)]
        self.wires = [bytearray() for _ in range(CONNECTIONS)]
        opener = self.sockets[0]
        assert opener
        opener.send(b"POST /open/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n\0")
        worker.drain()
        [(status, body)] = replies_of(received(opener)[0])
        assert status == 200
        assert body[-1:] == b"\n"
        self.session = body[:-1].decode()
        self.upstream = worker.accept()
        self.upstream_closed = False
        self.got = bytearray()
        self.number = 0

    def send(self, which: int, data: bytearray, size: int) -> bool:
        """Send so much of it, or less: the order of two connections that have more behind a request is the worker's.
        False: nothing was sent."""
        sock, connection = self.sockets[which], self.model.connections[which]
        others = (each for each in self.model.connections if each is not connection)
        if any(each.under_way and each.input for each in others):
            size = min(size, 0 if connection.under_way else left(connection.input, bytes(data)))
        part = bytes(data[:size])
        if not sock or not part:
            return False
        del data[:size]
        with suppress(ConnectionError):
            sock.send(part)
        self.worker.drain()
        self.model.receive(connection, part)
        return True

    def close(self, which: int) -> None:
        """The client has read all replies, so this is FIN."""
        if sock := self.sockets[which]:
            self.read(which)
            self.sockets[which] = None
            sock.close()
            self.worker.drain()
            self.model.client_closes(self.model.connections[which])

    def upstream_sends(self, data: bytes) -> None:
        if not self.upstream_closed and not self.model.over and data:
            with suppress(ConnectionError):
                self.upstream.send(data)
            self.worker.drain()
            self.model.upstream_sends(data)

    def upstream_closes(self) -> None:
        if not self.upstream_closed:
            self.upstream_closed = True
            with suppress(OSError):
                self.upstream.shutdown(socket.SHUT_WR)
            self.worker.drain()
            self.model.upstream_closes()

    def read(self, which: int) -> None:
        if sock := self.sockets[which]:
            self.wires[which] += received(sock)[0]

    def check(self) -> None:
        """Nothing is due, and nothing more has come."""
        self.got += received(self.upstream)[0]
        assert self.got == self.model.upstream, "the upstream got other bytes"
        for which, connection in enumerate(self.model.connections):
            self.read(which)
            if not connection.closed:
                got = replies_of(bytes(self.wires[which]))
                assert got == connection.replies, f"replies on {which}: {got[-3:]}, {connection.replies[-3:]}"
        assert not self.worker.errors, self.worker.errors

    def end(self) -> None:
        """A session whose upstream has closed is there until its next request."""
        for which in range(CONNECTIONS):
            self.close(which)
        with self.worker.connect() as client:
            client.send(request("close", self.session, None, b""))
            self.worker.drain()
        self.upstream.close()
        self.worker.drain()


_workers: list[TunnelWorker] = []


def _worker() -> TunnelWorker:
    """One for all inputs."""
    if not _workers:
        _workers.append(TunnelWorker())
    return _workers[0]


def tunnel(data: bytes) -> None:
    """data: steps, each an operation, an argument, and sizes of pieces in which two connections send in turn."""
    if len(data) < 4:
        return
    worker = _worker()
    trial = Trial(worker)
    try:
        pending: list[bytearray] = [bytearray() for _ in range(CONNECTIONS)]
        steps = iter(data)
        for _, operation in zip(range(MOST_STEPS), steps, strict=False):
            argument = next(steps, 0)
            which = operation % CONNECTIONS
            match operation // CONNECTIONS % 8:
                case 0 | 1 | 2 | 3:
                    pending[which] += _request(trial, operation // (8 * CONNECTIONS), argument)
                case 4:
                    # Pieces of all connections in turn, of so many bytes.
                    for number, part in enumerate(pending):
                        trial.send(number, part, 1 + (argument >> number) % 96)
                case 5:
                    trial.send(which, pending[which], len(pending[which]))
                case 6:
                    trial.upstream_sends(bytes([argument]) * (1 + argument % MOST_DATA))
                case _:
                    if argument < 16:
                        trial.upstream_closes()
                    elif argument < 96:
                        trial.close(which)
            trial.check()
        while sum(trial.send(which, part, len(part)) for which, part in enumerate(pending)):
            trial.check()
    finally:
        trial.end()
    worker.settle()


def _request(trial: Trial, choice: int, argument: int) -> bytes:
    """The next request, one out of its turn, or one once more."""
    kind = KINDS[0 if choice < 5 else 1 if choice < 9 else 2]
    number: int | None = trial.number
    match argument % 8:
        case 0 | 1 | 2 | 3:
            trial.number += 1
        case 4:
            number = trial.number + 1 + argument // 8  # later ones fill the gap
        case 5:
            number = max(0, trial.number - 1 - argument // 8 % 4)
        case 6:
            trial.number += 2
        case _:
            number = None if kind == "close" or argument > 200 else trial.number
            trial.number += 1
    body = bytes([argument]) * (argument % MOST_DATA) if kind == "send" else b"\0"
    return request(kind, trial.session, number, body)


# ------------------------------------------------------------------------------------------------------------- messages

MESSAGE = struct.Struct("=IBBBBHHiI4xq16s")  # Message in _native/tunnel/lines.pxi
PEER = 9  # incarnation of the other worker


def message(
    kind: int, *, size: int, what: int = 0, status: int = 0, remote: int = 0, serial: int = 0, number: int = 0,
    session: bytes = b"", version: int = 1,
) -> bytes:  # fmt: skip
    return MESSAGE.pack(size, version, kind, what, 0, status, 0, remote, serial, number, session)


def tunnel_line(data: bytes) -> None:
    """data: a session's id is filled in, then they are what another worker sends over its line, in pieces."""
    if len(data) < 2:
        return
    worker = _worker()
    trial = Trial(worker)
    ours, theirs = socket.socketpair()
    try:
        for end in (ours, theirs):
            end.setblocking(False)
        worker.tunnels.add_line(PEER, ours.fileno())
        ours.detach()
        size, wire = 1 + data[0], data[1:].replace(b"@" * 16, trial.session.encode())
        for at in range(0, len(wire), size):
            with suppress(OSError):  # the line is closed
                theirs.send(wire[at : at + size])
            worker.drain()
        trial.got += received(trial.upstream)[0]
        got = received(theirs)
        _check_line(wire, got[0], bool(got[1]))
    finally:
        theirs.close()
        trial.end()
    worker.settle()


def _check_line(wire: bytes, got: bytes, closed: bool) -> None:
    """Each message from us is whole; the line is closed at the first one that no worker of ours sends."""
    at, sane = 0, True
    while sane and len(wire) - at >= MESSAGE.size:
        size, version, kind, what, _, status, _, remote, _, number, _ = MESSAGE.unpack_from(wire, at)
        sane = version == 1 and remote >= 0
        if kind == 0:
            sane = sane and size <= 4 << 20 and 3 <= what <= 5 and number >= -1
        elif kind == 1:
            sane = sane and size <= 65536 and 200 <= status <= 599 and remote < CAPACITY
        else:
            sane = sane and kind in (2, 3) and size == 0
        if not sane or len(wire) - at - MESSAGE.size < size:
            break
        at += MESSAGE.size + size
    assert closed == (not sane), f"closed: {closed}, but sane: {sane}"
    at = 0
    while at < len(got):
        size, version, kind, *_ = MESSAGE.unpack_from(got, at)
        assert (version, kind) == (1, 1), "more than replies"
        at += MESSAGE.size + size
    assert at == len(got), "a part of a message"


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """(target, name, input). ``python -m fuzz.tunnel`` writes them."""

    def step(operation: int, choice: int = 0) -> int:
        return operation * CONNECTIONS + choice * 8 * CONNECTIONS

    operations = {
        "send": step(0), "poll": step(0, 6), "close": step(0, 10), "pieces": step(4), "flush": step(5),
        "upstream": step(6), "end": step(7),
    }  # fmt: skip

    def program(text: str) -> bytes:
        """Words OPERATION[CONNECTION][:ARGUMENT]."""
        found = bytearray()
        for word in text.split():
            name, _, argument = word.partition(":")
            which = int(name[-1]) if name[-1].isdigit() else 0
            found += bytes([operations[name.rstrip("012")] + which, int(argument or 0)])
        return bytes(found)

    window = " ".join(f"send{n % 3}:{4 + 8 * n}" for n in range(18))
    programs = {
        "echo": "send:8 flush upstream:40 poll flush close flush",
        "held": "poll flush upstream:9 poll flush poll flush",
        "two-connections": "send:64 send1:64 flush1 flush upstream:90 poll flush",
        "window": f"{window} flush flush1 flush2",
        "gap": "send:8 flush send:6 send1:14 flush1 flush close:15",
        "repeated": "send:8 flush upstream:70 poll flush poll1:5 flush1",
        "twice-held": "poll flush poll1:5 flush1 upstream:33",
        "pieces": "send:72 poll1 send2:80 pieces:255 pieces:255 pieces:255 pieces:255 flush pieces:31",
        "client-leaves": "poll flush end:50 upstream:20 poll1 flush1",
        "upstream-leaves": "poll flush upstream:20 end:1 poll flush poll flush",
        "close-in-the-window": "send:8 flush close1:4 flush1 send flush",
        "pipelined": "send send:8 send:16 send:24 send:32 send:40 poll close flush",
        "behind-an-early-poll": "send flush poll1:4 send1 flush1 send flush send flush",
        "empties": "poll " * 40 + "flush",
    }
    for name, text in programs.items():
        yield "tunnel", name, program(text)
    mark = b"@" * 16
    ask = message(0, size=3, what=3, remote=5, serial=1, session=mark) + b"abc"
    poll_ = message(0, size=1, what=4, remote=6, serial=2, number=1, session=mark) + b"\0"
    lines = {
        "request": ask,
        "poll-and-cancel": ask + poll_ + message(2, size=0, remote=6, serial=2, session=mark),
        "poll-and-hurry": ask + poll_ + message(3, size=0, remote=6, serial=2, session=mark),
        "close": ask + message(0, size=1, what=5, remote=5, serial=3, number=-1, session=mark) + b"\0",
        "unknown": message(0, size=0, what=4, remote=5, session=b"A09aaaaaaaaaaaaa"),
        "reply": message(1, size=3, status=200, remote=5, serial=9) + b"\1ab",
        "reply-too-large": message(1, size=1 << 20, status=200, remote=5) + bytes(100),
        "no-kind": message(0, size=0, what=0, remote=5, session=mark) * 20,
        "no-connection": message(1, size=0, status=200, remote=-1),
        "no-version": message(0, size=0, what=4, version=2, session=mark),
        "no-type": message(7, size=0),
        "negative": message(0, size=0, what=4, remote=5, number=-5, session=mark),
        "part": ask[:30],
    }
    for name, wire in lines.items():
        for size in (7, 255):
            yield "tunnel_line", f"{name}-{size}", bytes([size]) + wire


def main() -> None:
    from pathlib import Path as Folder

    for target, name, data in seeds():
        folder = Folder(__file__).parent / "seeds" / target
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
