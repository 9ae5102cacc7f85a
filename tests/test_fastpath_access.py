"""The access log's samples: each outcome told once, with the client's address; none when off; bounded under a flood."""

import socket
from collections.abc import Callable
from typing import NamedTuple

import pytest

from flashpol._fastpath import OUTCOMES, REASONS, Acceptor, ConnectionTable, PolicyReply
from flashpol.counters.shared import SharedCounters
from testkit.accounts import outcomes
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.fastpath_loop import Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

BURST = 100  # SAMPLE_BURST


class Access(NamedTuple):
    listener: int
    ip: str
    port: int
    outcome: str
    seconds: float
    sent: int
    left_out: int


class Sampled(NamedTuple):
    loop: Loop
    told: list[Access]


Sample = Callable[..., Sampled]


@pytest.fixture
def sample(start: Callable[..., Loop]) -> Sample:
    def make(reply: bytes = REPLY, share: float = 1.0, **settings: object) -> Sampled:
        told: list[Access] = []
        hook = {"on_access": lambda *values: told.append(Access(*values)), "access_log": share}
        return Sampled(start(reply, **(hook | settings)), told)

    return make


# What the client sends, FIN or RST after it, and what is told of it.
CASES = {
    "reply": ([REQUEST], "reply", len(REPLY)),
    "reply after pieces": ([BARE[:5], BARE[5:], b"\0"], "reply", len(REPLY)),
    "reply after grace": ([BARE], "reply", len(REPLY)),
    "reply, then lingering": ([REQUEST + b"more", b"and more"], "reply", len(REPLY)),
    "timeout": ([b"<policy"], "timeout", 0),
    "http": ([b"GET / HTTP/1.1\r\n\r\n"], "http", 0),
    "tls": ([b"\x16\x03\x01"], "tls", 0),
    "other": ([b"x"], "other", 0),
    "reset": ([b"<policy", "RST"], "reset", 0),
    "fin": ([b"<policy", "FIN"], "reset", 0),
}


@pytest.mark.parametrize(("steps", "outcome", "sent"), CASES.values(), ids=CASES)
def test_each_outcome_is_told_once(sample: Sample, steps: list[bytes | str], outcome: str, sent: int) -> None:
    loop, told = sample()
    with loop.connect() as client:
        ip, port = client.getsockname()
        for step in steps:
            if step == "RST":
                reset(client)
            elif step == "FIN":
                client.shutdown(socket.SHUT_WR)
            else:
                loop.send(client, step)
        assert loop.settle() == {outcome: 1}
    [access] = told
    assert access._replace(seconds=0) == (0, ip, port, outcome, 0, sent, 0)
    assert 0 <= access.seconds < 60


def test_the_seconds_are_those_of_the_histogram(sample: Sample) -> None:
    loop, told = sample()
    with loop.connect() as client:
        loop.send(client, BARE)
        loop.until(lambda: told)
    loop.settle()
    assert told[0].seconds == pytest.approx(loop.counters["duration_ns"] / 1e9, abs=0.01)
    assert told[0].seconds >= 0.05


def test_a_client_that_reset_before_it_was_accepted_has_its_address(sample: Sample) -> None:
    loop, told = sample()
    client = socket.create_connection(loop.address)
    name = client.getsockname()
    reset(client)
    loop.until(lambda: told)
    assert (told[0].ip, told[0].port, told[0].outcome) == (*name, "reset")


@pytest.mark.parametrize(
    ("listen", "connect", "seen"),
    [("::1", "::1", "::1"), ("::", "::1", "::1"), ("::", "127.0.0.1", "127.0.0.1")],
)
def test_addresses_of_both_families(listen: str, connect: str, seen: str) -> None:
    told: list[Access] = []
    connection_table = ConnectionTable(
        on_slow_reply=print, on_error=print, capacity=1024, request_timeout=1, terminator_grace=1, linger_timeout=1,
        linger_bytes=1, access_log=1.0, on_access=lambda *values: told.append(Access(*values)),
    )  # fmt: skip
    server = socket.create_server((listen, 0), family=socket.AF_INET6, dualstack_ipv6=listen == "::")
    memory = SharedCounters(1, 1).memory(0, 0)
    with server, socket.create_connection((connect, server.getsockname()[1])) as client:
        server.setblocking(False)
        acceptor = Acceptor(connection_table, server.fileno(), PolicyReply(REPLY), memory, on_exhausted=print)
        deliver(client, REQUEST)
        assert acceptor.ready() == 1
        assert told[0][:4] == (0, seen, client.getsockname()[1], "reply")


def test_a_conversation_is_told_when_it_is_decided(sample: Sample) -> None:
    loop, told = sample(LARGE)
    for outcome in ("timeout", "capacity"):
        with loop.connect(receive_buffer=2048) as client:
            loop.send(client, REQUEST)
            loop.until(lambda: loop.handed)
            loop.connection_table.close_as(loop.handed.pop(), outcome)
            assert told[-1].outcome == outcome
            assert 0 < told[-1].sent < len(LARGE)
    assert loop.settle() == {"timeout": 1, "capacity": 1}
    assert len(told) == 2


def test_a_hook_that_abandons_is_told_too(sample: Sample) -> None:
    def refuse(fd: int) -> None:
        raise ValueError

    loop, told = sample(LARGE, on_slow_reply=refuse)
    with loop.connect(receive_buffer=2048) as client:
        loop.send(client, REQUEST)
        assert loop.settle() == {"capacity": 1}
    assert [access.outcome for access in told] == ["capacity"]


def test_what_is_cut_off_at_the_end_is_told(sample: Sample) -> None:
    loop, told = sample()
    with loop.connect(), loop.connect():
        assert loop.connection_table.close_all() == 2
        assert [access.outcome for access in told] == ["shutdown"] * 2
        loop.connection_table.close_all()
        assert len(told) == 2


def test_what_does_not_fit_is_told(sample: Sample) -> None:
    loop, told = sample(capacity=1)
    with socket.create_connection(loop.address) as client:
        loop.until(lambda: told)
        assert told[0][:4] == (0, *client.getsockname(), "capacity")
    assert outcomes(loop.counters) == {"capacity": 1}


def test_the_names() -> None:
    assert (*REASONS, "timeout", "reset", "reply", "relayed") == OUTCOMES


def test_off_means_that_nothing_is_told(sample: Sample) -> None:
    loop, told = sample(share=0.0)
    with loop.connect() as client:
        loop.send(client, REQUEST)
        assert until_end(client) == (REPLY, "fin")
    loop.settle()
    assert told == []


def burst(loop: Loop, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(loop.address) as client:
            deliver(client, REQUEST)
            loop.drain()


def test_a_flood_is_bounded_and_what_is_left_out_is_counted(sample: Sample) -> None:
    loop, told = sample()
    with loop.connect() as last:
        burst(loop, 3 * BURST)
        assert len(told) == BURST - 1
        assert not any(access.left_out for access in told)
        loop.send(last, REQUEST)  # sampled before the flood
        assert told[-1].left_out == 2 * BURST + 1
    loop.settle()


def test_a_share_is_about_that_share(sample: Sample) -> None:
    loop, told = sample(share=0.25)
    with loop.connect():
        burst(loop, 200)
    loop.settle()
    # 200 throws at 1 in 4: 50 on average, 6 standard deviations either side.
    assert 13 < len(told) < 87


def test_what_the_hook_raises_is_reported(sample: Sample) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    loop, _ = sample(on_access=fail)
    with loop.connect() as client:
        loop.send(client, REQUEST)
        assert until_end(client) == (REPLY, "fin")
    loop.settle()
    assert [type(error) for error in loop.errors] == [KeyboardInterrupt]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_from_0_to_1(sample: Sample, share: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        sample(share=share)
