"""The pump against a model: in any order of events each side gets what the other sent, and its end."""

import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol._pump import ENDS, Destination
from testkit.clients import reset
from testkit.examples import examples
from testkit.pump_loop import TIMES, PumpLoop

SIDE = st.integers(0, 1)
SIZE = st.sampled_from([1, 22, 4096, 65_536, 65_537, 300_000])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SIDE, SIZE),
        st.tuples(st.just("read"), SIDE, SIZE),
        st.tuples(st.just("finish"), SIDE, st.just(0)),
        st.tuples(st.just("turn"), SIDE, st.just(0)),
    ),
    max_size=25,
)
Step = tuple[str, int, int]
PATTERN = random.Random(3).randbytes(1 << 21)


@dataclass
class End:
    """One side: what it sent, what it got, whether it has closed, and what it has seen of the other's end."""

    sock: socket.socket
    sent: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    finished: bool = False
    seen: str = ""

    def send(self, size: int) -> None:
        at = len(self.sent) % (1 << 20)
        with suppress(BlockingIOError):
            sent = 0 if self.finished else self.sock.send(PATTERN[at : at + size])
            self.sent += PATTERN[at : at + sent]

    def read(self, size: int) -> None:
        with suppress(BlockingIOError):
            try:
                data = b"" if self.seen else self.sock.recv(size)
            except (ConnectionResetError, BrokenPipeError):
                self.seen = "rst"
                return
            self.got += data
            self.seen = self.seen or ("" if data else "fin")

    def finish(self, size: int = 0) -> None:
        if not self.finished:
            self.finished = True
            self.sock.shutdown(socket.SHUT_WR)


def read_until(loop: PumpLoop, end: End, condition: Callable[[], object]) -> None:
    def over() -> object:
        end.read(1 << 16)
        return condition()

    loop.until(over)


@examples(150)
@given(STEPS, st.binary(max_size=30), st.sampled_from([0, 1, 8]), st.sampled_from(["fin", "rst"]), SIDE)
def test_pump_delivers_all_bytes_and_the_end_in_any_order_of_events(
    steps: list[Step], first: bytes, buffers: int, last: str, closing: int
) -> None:
    loop = PumpLoop(buffers=buffers)
    client, server = loop.pair(first=first)
    ends = End(client, bytearray(first)), End(server)
    try:
        for end in ends:
            end.sock.setblocking(False)
        for what, side, size in steps:
            if what != "turn":
                getattr(ends[side], what)(size)
            loop.turn()
            assert loop.pump.check() == 1 - len(loop.ended)
            assert loop.pump.buffers_held <= buffers
        # Everything is read; then one side ends as `last` says, and the other sees it.
        for end, other in (ends, reversed(ends)):
            read_until(loop, end, lambda end=end, other=other: len(end.got) >= len(other.sent))
        first_to_end, other = ends[closing], ends[1 - closing]
        if last == "rst" and not first_to_end.finished:
            reset(first_to_end.sock)
            read_until(loop, other, lambda: other.seen)
            assert other.seen == "rst"
        else:
            for end in (first_to_end, other):
                end.finish()
            for end in ends:
                read_until(loop, end, lambda end=end: end.seen)
                assert end.seen == "fin"
        loop.until(lambda: loop.ended)
        assert [bytes(end.got) for end in ends] == [bytes(end.sent) for end in reversed(ends)]
    finally:
        for end in ends:
            end.sock.close()
        loop.close()
    assert not loop.errors
    assert (loop.pump.open, loop.pump.buffers_held, loop.counters["open"]) == (0, 0, 0)
    assert loop.counters.all("sent") == [len(end.sent) for end in ends]


def end_in_any_order(chance: random.Random, *sockets: socket.socket) -> None:
    for sock in chance.sample(sockets, len(sockets)):
        if chance.random() < 0.5:
            reset(sock)
        else:
            sock.close()


@pytest.mark.parametrize("seed", range(3))
def test_pump_under_random_sessions_mixes_nothing_up(seed: int) -> None:
    """Up to forty sessions at a time, for 3,000 turns; each is opened, stalled, closed, reset or evicted at random.
    Others are silent, and end by themselves."""
    chance = random.Random(seed)
    loop = PumpLoop(buffers=4, local_ports=300, time_wait=0.1)
    impatient = loop.pump.add_timeouts(**TIMES | {"silent_timeout": 0.05})
    to_silence = Destination(loop.destination.address, loop.block, timeouts=impatient)
    sessions: list[tuple[socket.socket, socket.socket, int, list[bytearray]]] = []
    silent: list[socket.socket] = []
    opened = evicted = 0
    for _ in range(3000):
        if chance.random() < 0.02:
            silent += loop.pair(to=to_silence)
            opened += 1
        if len(sessions) < 40 and chance.random() < 0.3:
            client, server = loop.pair(first=b"%d" % opened, address=chance.randrange(4))
            client.setblocking(False)
            server.setblocking(False)
            sessions.append((client, server, loop.inner[-1].fileno(), [bytearray(b"%d" % opened), bytearray()]))
            opened += 1
        if not sessions:
            continue
        one = chance.randrange(len(sessions))
        client, server, fd, owed = sessions[one]
        side = chance.randrange(2)
        sock, other, action = (client, server)[side], 1 - side, chance.random()
        with suppress(BlockingIOError):
            if action < 0.5:
                data = chance.randbytes(chance.choice([1, 100, 20_000]))
                owed[side] += data[: sock.send(data)]
            elif action < 0.9:
                data = sock.recv(chance.choice([10, 100_000]))
                assert owed[other][: len(data)] == data
                del owed[other][: len(data)]
            else:
                sessions.pop(one)
                if chance.random() < 0.2:
                    assert loop.pump.cut_by_client(fd)
                    evicted += 1
                end_in_any_order(chance, client, server)
        loop.turn()
    for one_session in sessions:
        end_in_any_order(chance, *one_session[:2])
    loop.until(lambda: loop.pump.open == 0)
    for sock in silent:
        sock.close()
    assert len(loop.ended) == opened == loop.counters["opened"] == sum(loop.counters.all("ends"))
    ends = dict(zip(ENDS, loop.counters.all("ends"), strict=True))
    assert (ends["silent"], ends["evicted"]) == (len(silent) // 2, evicted)
    assert loop.pump.buffers_held == 0
    loop.close()
