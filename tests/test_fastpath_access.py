"""The access log: each outcome once, with the client's address; no line when off; a share is limited under a flood."""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from flashpol._fastpath import OUTCOMES, REASONS, Acceptor, Account, ConnectionTable, PolicyReply
from flashpol.counters.shared import SharedCounters
from testkit.accounts import outcomes
from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.fastpath_loop import TIMES, Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

BURST = 100  # SAMPLE_BURST
PLACES = 1024  # SAMPLE_COUNT
ALMOST_ALL = 1 - 2**-31  # one of 2**31 connections is not sampled


class Access(NamedTuple):
    listener: int
    ip: str
    port: int
    outcome: str
    seconds: float
    sent: int
    left_out: int
    protocol: str | None
    tls: bool


class Sampled(NamedTuple):
    loop: Loop
    logged: list[Access]


Sample = Callable[..., Sampled]


@pytest.fixture
def sample(start: Callable[..., Loop]) -> Sample:
    def make(reply: bytes = REPLY, share: float = 1.0, **settings: object) -> Sampled:
        logged: list[Access] = []
        hook = {"on_access": lambda *values: logged.append(Access(*values)), "access_log": share}
        return Sampled(start(reply, **(hook | settings)), logged)

    return make


# What the client sends, with FIN or RST, and the outcome and bytes that are logged.
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
def test_access_log_has_each_outcome_once(sample: Sample, steps: list[bytes | str], outcome: str, sent: int) -> None:
    loop, logged = sample()
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
    [access] = logged
    assert access._replace(seconds=0) == (0, ip, port, outcome, 0, sent, 0, None, False)
    assert 0 <= access.seconds < 60


def test_access_log_seconds_equal_the_histogram(sample: Sample) -> None:
    loop, logged = sample()
    with loop.connect() as client:
        loop.send(client, BARE)
        loop.until(lambda: logged)
    loop.settle()
    assert logged[0].seconds == pytest.approx(loop.counters["duration_ns"] / 1e9, abs=0.01)
    assert logged[0].seconds >= 0.05


def test_access_log_of_a_client_reset_before_accept_has_its_address(sample: Sample) -> None:
    loop, logged = sample()
    client = socket.create_connection(loop.address)
    name = client.getsockname()
    reset(client)
    loop.until(lambda: logged)
    assert (logged[0].ip, logged[0].port, logged[0].outcome) == (*name, "reset")


@pytest.mark.parametrize(
    ("listen", "connect", "seen"),
    [("::1", "::1", "::1"), ("::", "::1", "::1"), ("::", "127.0.0.1", "127.0.0.1")],
)
def test_access_log_has_addresses_of_both_families(listen: str, connect: str, seen: str) -> None:
    logged: list[Access] = []
    connection_table = ConnectionTable(
        account=Account(capacity=1024), on_slow_reply=print, on_error=print,
        access_log=1.0, on_access=lambda *values: logged.append(Access(*values)),
    )  # fmt: skip
    server = socket.create_server((listen, 0), family=socket.AF_INET6, dualstack_ipv6=listen == "::")
    memory = SharedCounters(1, 1).memory(0, 0)
    with server, socket.create_connection((connect, server.getsockname()[1])) as client:
        server.setblocking(False)
        acceptor = Acceptor(
            connection_table, server.fileno(), PolicyReply(REPLY), memory, on_exhausted=print,
            timeouts=connection_table.add_timeouts(**TIMES), linger_bytes=1, reply_timeout=1,
        )  # fmt: skip
        deliver(client, REQUEST)
        assert acceptor.ready() == 1
        assert logged[0][:4] == (0, seen, client.getsockname()[1], "reply")


def test_access_log_of_a_slow_reply_is_written_by_close_as(sample: Sample) -> None:
    loop, logged = sample(LARGE)
    for outcome in ("timeout", "capacity"):
        with loop.connect(receive_buffer=2048) as client:
            loop.send(client, REQUEST)
            loop.until(lambda: loop.slow_replies)
            loop.connection_table.close_as(loop.slow_replies.pop(), outcome)
            assert logged[-1].outcome == outcome
            assert 0 < logged[-1].sent < len(LARGE)
    assert loop.settle() == {"timeout": 1, "capacity": 1}
    assert len(logged) == 2


def test_access_log_has_capacity_after_the_slow_reply_hook_raised(sample: Sample) -> None:
    def refuse(fd: int, listener: int) -> None:
        raise ValueError

    loop, logged = sample(LARGE, on_slow_reply=refuse)
    with loop.connect(receive_buffer=2048) as client:
        loop.send(client, REQUEST)
        assert loop.settle() == {"capacity": 1}
    assert [access.outcome for access in logged] == ["capacity"]


def test_access_log_has_what_close_all_closed(sample: Sample) -> None:
    loop, logged = sample()
    with loop.connect(), loop.connect():
        assert loop.connection_table.close_all() == 2
        assert [access.outcome for access in logged] == ["shutdown"] * 2
        loop.connection_table.close_all()
        assert len(logged) == 2


def test_access_log_has_a_connection_over_capacity(sample: Sample) -> None:
    loop, logged = sample(capacity=1)
    with socket.create_connection(loop.address) as client:
        loop.until(lambda: logged)
        assert logged[0][:4] == (0, *client.getsockname(), "capacity")
    assert outcomes(loop.counters) == {"capacity": 1}


def test_outcomes_are_the_reasons_and_five_more() -> None:
    assert (*REASONS, "timeout", "reset", "reply", "relayed", "served") == OUTCOMES


def test_access_log_off_calls_no_hook(sample: Sample) -> None:
    loop, logged = sample(share=0.0)
    with loop.connect() as client:
        loop.send(client, REQUEST)
        assert until_end(client) == (REPLY, "fin")
    loop.settle()
    assert logged == []


def burst(loop: Loop, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(loop.address) as client:
            deliver(client, REQUEST)
            loop.drain()


def test_access_log_of_all_under_a_flood_has_every_connection(sample: Sample) -> None:
    loop, logged = sample()
    burst(loop, 3 * BURST)
    loop.settle()
    assert [access.outcome for access in logged] == ["reply"] * 3 * BURST
    assert loop.connection_table.take_left_out() == sum(access.left_out for access in logged) == 0


def test_access_log_of_all_has_more_idle_connections_than_places_of_a_share(sample: Sample) -> None:
    loop, logged = sample(request_timeout=60)
    with ExitStack() as stack:
        idle = [stack.enter_context(loop.connect()) for _ in range(PLACES + 76)]
        with loop.connect() as client:
            loop.send(client, REQUEST)
            assert [access.outcome for access in logged] == ["reply"]
        loop.connection_table.check()
        assert loop.connection_table.close_all() == len(idle)
    assert len(logged) == len(idle) + 1
    assert len({access.port for access in logged}) == len(logged)


def test_access_log_of_a_share_under_a_flood_is_limited_and_counts_what_it_leaves_out(sample: Sample) -> None:
    loop, logged = sample(share=ALMOST_ALL)
    with loop.connect() as last:
        burst(loop, 3 * BURST)
        assert len(logged) == BURST - 1
        assert not any(access.left_out for access in logged)
        loop.send(last, REQUEST)  # sampled before the flood
        assert logged[-1].left_out == 2 * BURST + 1
    loop.settle()
    assert loop.connection_table.take_left_out() == 0


def test_access_log_that_ends_in_a_flood_says_what_it_left_out(sample: Sample) -> None:
    loop, logged = sample(share=ALMOST_ALL)
    burst(loop, 2 * BURST)
    loop.connection_table.close_all()
    assert len(logged) == BURST
    assert loop.connection_table.take_left_out() == BURST
    assert loop.connection_table.take_left_out() == 0


def test_access_log_share_samples_about_that_many(sample: Sample) -> None:
    loop, logged = sample(share=0.25)
    with loop.connect():
        burst(loop, 200)
    loop.settle()
    # 200 connections, 1 in 4 sampled: 50 on average, 6 standard deviations on either side.
    assert 13 < len(logged) < 87


def test_access_log_hook_that_raises_is_reported(sample: Sample) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    loop, _ = sample(on_access=fail)
    with loop.connect() as client:
        loop.send(client, REQUEST)
        assert until_end(client) == (REPLY, "fin")
    loop.settle()
    assert [type(error) for error in loop.errors] == [KeyboardInterrupt]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_access_log_share_outside_0_to_1_is_an_error(sample: Sample, share: float) -> None:
    with pytest.raises(ValueError, match="0 to 1"):
        sample(share=share)
