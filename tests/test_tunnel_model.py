"""Random clients of one tunnel session: whatever becomes of their requests, both streams are whole and in order.

The client has two connections, as Flash Player had in browsers: it sends the next number on either, loses connections
with requests and replies in them, and sends again what has no reply, also what has one. What it may not do is give a
number up.
"""

from contextlib import suppress
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testkit.tunnel_loop import Lane, Session, TunnelLoop, post

KINDS = ("send", "idle")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("new"), st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 3000)),
        st.tuples(st.just("late"), st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 40)),
        st.tuples(st.just("again"), st.integers(0, 3), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("drop"), st.just(""), st.integers(0, 1), st.booleans()),
        st.tuples(st.just("say"), st.just(""), st.just(0), st.integers(1, 100_000)),
        st.tuples(st.just("turn"), st.just(""), st.just(0), st.integers(1, 4)),
        st.tuples(st.just("read"), st.just(""), st.integers(0, 1), st.just(0)),
    ),
    max_size=40,
)


class RandomClient:
    """It sends a number when it has the replies to all others but the one before: so many replies are kept."""

    def __init__(self, worker: TunnelLoop, other: TunnelLoop | None = None) -> None:
        self.worker = worker
        self.workers = [worker, other or worker]
        self.session: Session = worker.open()
        self.first = b"first"  # with the number that is adopted
        self.session.send(0, self.first)
        self.session.lane.close()
        self.lanes: list[Lane | None] = [None, None]
        self.owed: list[list[int]] = [[], []]  # numbers, by connection
        self.requests: list[tuple[str, bytes]] = [("send", self.first)]  # by number
        self.replies: dict[int, bytes] = {0: b""}
        self.held_back: list[int] = []  # numbers that are sent later
        self.said = b""
        self.pending = bytearray()

    def lane(self, via: int) -> Lane:
        lane = self.lanes[via]
        if lane is None:
            lane = self.lanes[via] = self.workers[via].lane()
        return lane

    def write(self, number: int, via: int) -> None:
        kind, body = self.requests[number]
        self.owed[via].append(number)
        self.lane(via).send(post(self.session.path(kind, number), body))

    def new(self, kind: str, body: bytes) -> int:
        self.requests.append((kind, body))
        return len(self.requests) - 1

    def drop(self, via: int, fin: bool) -> None:
        lane = self.lanes[via]
        if lane is not None:
            if fin:
                lane.close()
            else:
                lane.reset_now()
            self.lanes[via] = None
            self.owed[via].clear()

    def say(self) -> None:
        """Hand over what the application still has to send."""
        self.session.inner.setblocking(False)
        with suppress(BlockingIOError):
            del self.pending[: self.session.inner.send(self.pending)]

    def read(self, via: int) -> bool:
        """A reply, if there is one."""
        lane = self.lanes[via]
        if lane is None or not self.owed[via]:
            return False
        if not lane.ended:
            lane.pull()
        if not lane._complete():
            return False
        reply = lane.reply()
        number = self.owed[via].pop(0)
        if reply.status == 503:
            return True  # another connection has it
        assert reply.status == 200
        # A number that was sent twice may get an empty reply on one of the connections.
        if number not in self.replies or (reply.body and not self.replies[number]):
            self.replies[number] = reply.body
        elif reply.body:
            assert reply.body == self.replies[number]
        return True

    def has_read(self, via: int) -> bool:
        self.say()
        return self.read(via)

    def step(self, what: str, argument: object, via: int, size: int) -> None:
        if what == "new" and not self.held_back:
            if len(self.requests) - 1 == len(self.replies.keys() - {len(self.requests) - 1}):
                number = self.new(str(argument), b"%d;" % len(self.requests) + bytes(size))
                self.write(number, via)
        elif what == "late" and not self.held_back and len(self.requests) - len(self.replies) == 0:
            # The next but one comes first.
            first = self.new(str(argument), b"%d;" % len(self.requests) + bytes(size))
            second = self.new("send", b"%d;" % len(self.requests))
            self.write(second, via)
            self.held_back.append(first)
        elif what == "again" and self.requests:
            if self.held_back and size % 2:
                self.write(len(self.requests) - 1, via)  # the one that waits, once more
            elif self.held_back:
                self.write(self.held_back.pop(), via)
            else:
                self.write(max(0, len(self.requests) - 1 - int(str(argument)) % 2), via)
        elif what == "drop":
            self.drop(via, bool(size))
        elif what == "say":
            data = bytes(range(251)) * (size // 251 + 1)
            self.said += data[:size]
            self.pending += data[:size]
        elif what == "turn":
            for _ in range(size):
                self.worker.turn()
        elif what == "read":
            self.read(via)
        self.say()

    def finish(self) -> None:
        """Send again what has no reply, and poll until all has come."""
        for number in self.held_back:
            self.write(number, 0)
        self.held_back.clear()

        def settled(number: int) -> None:
            for attempt in range(50):
                if number in self.replies:
                    return
                for via in (0, 1):
                    self.drop(via, True)
                self.worker.drain()
                self.write(number, attempt % 2)
                self.worker.drain()
                self.say()
                self.worker.until(partial(self.has_read, attempt % 2), "a reply")
            raise AssertionError(f"number {number} gets no reply")

        for number in range(max(0, len(self.requests) - 2), len(self.requests)):
            settled(number)
        while sum(map(len, self.replies.values())) < len(self.said):
            self.say()
            settled(self.new("send", b"more"))
            assert len(self.requests) < 500
        for via in (0, 1):
            self.drop(via, True)

    def check(self) -> None:
        body = b"".join(body for kind, body in self.requests if kind == "send")
        assert self.session.heard(len(body)) == body
        assert self.session.hears_nothing()
        assert b"".join(self.replies[number] for number in sorted(self.replies)) == self.said


def run(steps: list[tuple[str, object, int, int]], workers: int) -> None:
    first = TunnelLoop(incarnation=1, capacity=512, times={"hold": 0.02})
    others = [TunnelLoop(incarnation=2, capacity=512, times={"hold": 0.02}) for _ in range(workers - 1)]
    try:
        for other in others:
            first.join(other)
        client = RandomClient(first, others[0] if others else None)
        for step in steps:
            client.step(*step)
        client.finish()
        client.check()
        client.session.inner.close()
        first.pump.cut_all()
        first.settle()
    finally:
        for worker in (first, *others):
            worker.close()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_streams_are_whole_whatever_becomes_of_requests(steps: list[tuple[str, object, int, int]]) -> None:
    run(steps, 1)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_streams_are_whole_with_a_connection_at_each_of_two_workers(steps: list[tuple[str, object, int, int]]) -> None:
    run(steps, 2)
