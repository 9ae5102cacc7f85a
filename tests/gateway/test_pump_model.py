"""The pump against a model: whatever both sides do, in whatever order, each gets what the other sent and its end."""

import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from gateway.pump_loop import PumpLoop
from hypothesis import given, settings
from hypothesis import strategies as st
from support import reset

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
PATTERN = random.Random(3).randbytes(1 << 21)


@dataclass
class End:
    """One side: what it sent, what it got, whether it has closed, and what it has seen of the other's end."""

    sent: bytearray = field(default_factory=bytearray)
    got: bytearray = field(default_factory=bytearray)
    finished: bool = False
    seen: str = ""


@settings(max_examples=150, deadline=None)
@given(steps=STEPS, first=st.binary(max_size=30), buffers=st.sampled_from([0, 1, 8]), last=st.sampled_from(["fin", "rst"]),
       closing=SIDE)  # fmt: skip
def test_bytes_and_ends(
    steps: list[tuple[str, int, int]], first: bytes, buffers: int, last: str, closing: int
) -> None:
    loop = PumpLoop(buffers=buffers)
    socks = loop.pair(first=first)
    ends = [End(bytearray(first)), End()]
    for sock in socks:
        sock.setblocking(False)

    def read(side: int, size: int) -> bool:
        """True if there was something: bytes or the end."""
        if ends[side].seen:
            return False
        try:
            data = socks[side].recv(size)
        except BlockingIOError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            ends[side].seen = "rst"
            return True
        ends[side].got += data
        ends[side].seen = "" if data else "fin"
        return True

    try:
        for what, side, size in steps:
            if what == "send" and not ends[side].finished:
                at = len(ends[side].sent) % (1 << 20)
                with suppress(BlockingIOError):
                    sent = socks[side].send(PATTERN[at : at + size])
                    ends[side].sent += PATTERN[at : at + sent]
            elif what == "read":
                read(side, size)
            elif what == "finish" and not ends[side].finished:
                ends[side].finished = True
                socks[side].shutdown(1)
            loop.turn()
            assert loop.pump.buffers_held <= buffers
        # All is read, then one side ends as `last` says, and the other finds out.
        for side in (0, 1):
            other = ends[1 - side]
            loop.until(lambda side=side, other=other: read(side, 1 << 16) * 0 or len(ends[side].got) >= len(other.sent))
            assert bytes(ends[side].got) == bytes(other.sent)
        other = 1 - closing
        both = all(end.finished for end in ends)
        if last == "rst" and not both:
            reset(socks[closing])
            if not ends[closing].finished:
                loop.until(lambda: read(other, 1) * 0 or ends[other].seen)
                assert ends[other].seen == "rst"
        else:
            for side in (closing, other):
                if not ends[side].finished:
                    ends[side].finished = True
                    socks[side].shutdown(1)
            for side in (0, 1):
                loop.until(lambda side=side: read(side, 1) * 0 or ends[side].seen)
                assert ends[side].seen == "fin"
            loop.until(lambda: loop.ended)
        for side in (0, 1):
            assert ends[side].got == ends[1 - side].sent
    finally:
        for sock in socks:
            sock.close()
        loop.close()
    assert not loop.errors
    assert (loop.pump.open, loop.pump.buffers_held, loop.counters["open"]) == (0, 0, 0)
    assert loop.counters.all("sent") == [len(ends[0].sent), len(ends[1].sent)]


@pytest.mark.parametrize("seed", range(3))
def test_a_crowd_that_opens_stalls_half_closes_and_resets(seed: int) -> None:
    """Forty at a time, for some thousand turns: nothing gets mixed up, and nothing is left."""
    dice = random.Random(seed)
    loop = PumpLoop(buffers=4)
    crowd: list[tuple[object, object, list[bytearray]]] = []
    opened = 0
    for _ in range(3000):
        if len(crowd) < 40 and dice.random() < 0.3:
            client, server = loop.pair(first=b"%d" % opened)
            client.setblocking(False)
            server.setblocking(False)
            crowd.append((client, server, [bytearray(b"%d" % opened), bytearray()]))
            opened += 1
        if not crowd:
            continue
        one = dice.randrange(len(crowd))
        client, server, owed = crowd[one]
        side = dice.randrange(2)
        sock, other = (client, server)[side], 1 - side
        action = dice.random()
        with suppress(BlockingIOError):
            if action < 0.5:
                data = dice.randbytes(dice.choice([1, 100, 20_000]))
                owed[side] += data[: sock.send(data)]
            elif action < 0.9:
                data = sock.recv(dice.choice([10, 100_000]))
                assert owed[other][: len(data)] == data
                del owed[other][: len(data)]
            else:
                crowd.pop(one)
                for each in dice.sample([client, server], 2):
                    if dice.random() < 0.5:
                        reset(each)
                    else:
                        each.close()
        loop.turn()
    for client, server, _ in crowd:
        client.close()
        server.close()
    loop.until(lambda: loop.pump.open == 0)
    assert len(loop.ended) == opened == loop.counters["opened"] == sum(loop.counters.all("ends"))
    assert loop.pump.buffers_held == 0
    loop.close()
