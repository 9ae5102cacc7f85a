"""ConnectionTable and Acceptor: every transition of a connection is counted exactly once and leaves nothing behind."""

import select
import socket
import time
from collections.abc import Callable

import pytest

from testkit.clients import BARE, REQUEST, deliver, reset, until_end
from testkit.fastpath_loop import LINGER_BYTES, TIMES, Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

FIN, RST, WAIT = "FIN", "RST", "WAIT"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n"


def play(loop: Loop, client: socket.socket, steps: list[bytes | str]) -> None:
    for step in steps:
        if step == FIN:
            client.shutdown(socket.SHUT_WR)
        elif step == RST:
            reset(client)
        elif step == WAIT:
            loop.until(lambda: loop.connection_table.open == 0)
        else:
            loop.send(client, step)


# (what the client does, how the server counts it). The name lists the states that the connection passes through.
TRANSITIONS = {
    "fresh, reply": ([REQUEST], "reply"),
    "fresh, reply, linger, fin": ([BARE + b"\n", FIN], "reply"),
    "fresh, reply, linger, more, fin": ([REQUEST + b"x", b"more", FIN], "reply"),
    "fresh, reply, linger, deadline": ([BARE + b"\r\n", WAIT], "reply"),
    "fresh, reply, linger, reset": ([REQUEST + b"x", RST], "reply"),
    "fresh, reply, linger, bound": ([REQUEST + b"x", b"x" * (LINGER_BYTES + 1), WAIT], "reply"),
    "request, reply": (["", b"<policy", b"-file-request/>\0"], "reply"),
    "request, grace, reply": ([b"<", BARE[1:], b"\0"], "reply"),
    "request, grace, reply, linger, fin": ([b"<", BARE[1:], b"\r", b"\n", FIN], "reply"),
    "grace, silence, reply, linger, fin": ([BARE, "GRACE", FIN], "reply"),
    "grace, silence, reply, linger, deadline": ([BARE, WAIT], "reply"),
    "grace, fin, reply": ([BARE, FIN], "reply"),
    "grace, other": ([BARE, b"x"], "other"),
    "grace, reset": ([BARE, RST], "reset"),
    "fresh, other": ([b"x"], "other"),
    "fresh, tls": ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], "tls"),
    "request, tls": ([b"\x16", b"\x03"], "tls"),
    "request, other": ([b"<pol", b"x"], "other"),
    "request, not named, other": ([b"P", b"O", b"X"], "other"),
    "request, not named, fin": ([b"P", FIN], "other"),
    "request, not named, reset": ([b"P", RST], "reset"),
    "request, not named, deadline": ([b"P", WAIT], "timeout"),
    "fresh, http, linger, fin": ([b"GET / HTTP/1.1\r\n\r\n", FIN], "http"),
    "fresh, http, linger, reset": ([b"GET / HTTP/1.1\r\n\r\n", RST], "http"),
    "fresh, http, linger, deadline": ([b"GET / HTTP/1.1\r\n\r\n", WAIT], "http"),
    "fresh, http, linger, bound": ([b"POST / HTTP/1.1\r\n\r\n", b"x" * 20_000, WAIT], "http"),
    "request, http, linger, fin": ([b"O", b"PTIONS", b" * HTTP/1.1", b"\r\n\r\n", FIN], "http"),
    "request, deadline": (["", WAIT], "timeout"),
    "request, part, deadline": ([b"<policy", WAIT], "timeout"),
    "fresh, fin": ([FIN], "reset"),
    "request, fin": ([b"<policy", FIN], "reset"),
    "request, reset": ([b"<policy", RST], "reset"),
    "request, nothing, reset": (["", RST], "reset"),
}


@pytest.mark.parametrize(("steps", "outcome"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_connection_after_each_transition_is_counted_once(
    start: Callable[..., Loop], steps: list[bytes | str], outcome: str
) -> None:
    loop = start()
    with loop.connect() as client:
        for step in steps:
            if step == "GRACE":
                loop.until(lambda: loop.counters.replies == 1)
            elif step == "":
                loop.drain()
                assert loop.counters["parked"] == loop.counters["open"] == 1
            else:
                play(loop, client, [step])
        assert loop.settle() == {outcome: 1}
        if client.fileno() < 0:
            return
        expected = {"reply": REPLY, "http": BAD_REQUEST}.get(outcome, b"")
        received, _ = until_end(client)
        assert received[: len(expected) if outcome == "http" else None] == expected


def test_connection_reset_before_accept_is_counted_as_reset(start: Callable[..., Loop]) -> None:
    loop = start()
    client = socket.create_connection(loop.address)
    reset(client)
    loop.until(lambda: loop.counters["accepted"])
    assert loop.settle() == {"reset": 1}


# Any split is proved on the matcher, by hypothesis and libFuzzer.
@pytest.mark.parametrize("size", [1, 11, 22])
def test_request_in_two_pieces_gets_the_reply(start: Callable[..., Loop], size: int) -> None:
    loop = start()
    with loop.connect() as client:
        loop.send(client, REQUEST[:size])
        assert loop.counters["parked"] == 1
        loop.send(client, REQUEST[size:])
        assert loop.settle() == {"reply": 1}
        assert until_end(client) == (REPLY, "fin")


def test_acceptor_with_a_complete_request_replies_in_one_turn(start: Callable[..., Loop]) -> None:
    """A request that is complete at accept is not parked: one `ready` of the acceptor sends the reply."""
    loop = start()
    with socket.create_connection(loop.address) as client:
        deliver(client, REQUEST)
        assert loop.acceptor.ready() == 1
        assert loop.settle() == {"reply": 1}
        assert loop.counters["reply_bytes"] == len(REPLY)
        assert until_end(client) == (REPLY, "fin")


# ------------------------------------------------------------------------------------------------------- slow replies


def slow_reply(loop: Loop) -> tuple[socket.socket, int]:
    """A client whose window is too small for the reply, and the descriptor that the hook was given."""
    client = loop.connect(receive_buffer=2048)
    loop.send(client, REQUEST)
    loop.until(lambda: loop.slow_replies)
    assert (loop.counters["slow_replies"], loop.counters["parked"], loop.counters.replies) == (1, 0, 0)
    return client, loop.slow_replies[0]


def test_send_more_finishes_a_slow_reply_that_then_lingers(start: Callable[..., Loop]) -> None:
    loop = start(LARGE)
    client, fd = slow_reply(loop)
    with client:
        assert loop.connection_table.send_more(fd) is False
        received = bytearray()
        done = False
        while not done:
            received += client.recv(1 << 16)
            if select.select([], [fd], [], 0)[1]:
                done = loop.connection_table.send_more(fd)
        assert loop.counters.replies == 1
        assert loop.counters["parked"] == 1  # it lingers
        received += until_end(client)[0]
        assert received == LARGE
        client.close()
        assert loop.settle() == {"reply": 1}
        assert loop.counters["reply_bytes"] == len(LARGE)


def test_send_more_after_reset_ends_a_slow_reply(start: Callable[..., Loop]) -> None:
    loop = start(LARGE)
    client, fd = slow_reply(loop)
    reset(client)
    loop.until(lambda: loop.connection_table.send_more(fd))
    assert loop.settle() == {"reset": 1}


@pytest.mark.parametrize("outcome", ["timeout", "http", "tls", "other", "capacity", "shutdown"])
def test_close_as_counts_the_outcome_given(start: Callable[..., Loop], outcome: str) -> None:
    loop = start(LARGE)
    client, fd = slow_reply(loop)
    with client:
        loop.connection_table.close_as(fd, outcome)
        assert loop.settle() == {outcome: 1}


def test_send_more_and_close_as_refuse_other_descriptors(start: Callable[..., Loop]) -> None:
    loop = start(LARGE)
    client, fd = slow_reply(loop)
    with client:
        with pytest.raises(ValueError, match="not in"):
            loop.connection_table.close_as(fd, "no such reason")
        loop.connection_table.close_as(fd, "shutdown")
    for wrong in (fd, -1, 1 << 16, 1 << 30):
        with pytest.raises(ValueError, match="is not a slow reply"):
            loop.connection_table.send_more(wrong)
        with pytest.raises(ValueError, match="is not a slow reply"):
            loop.connection_table.close_as(wrong, "timeout")
    assert loop.settle() == {"shutdown": 1}


# ---------------------------------------------------------------------------------------------------------- deadlines


@pytest.mark.parametrize("request_", [REQUEST + b"x", b"GET / HTTP/1.1\r\n\r\n"], ids=["reply", "http"])
def test_lingering_connection_after_fin_is_closed_before_its_deadline(
    start: Callable[..., Loop], request_: bytes
) -> None:
    loop = start(linger_timeout=30)
    with loop.connect() as client:
        loop.send(client, request_)
        assert loop.counters["parked"] == 1
        client.shutdown(socket.SHUT_WR)
        loop.until(lambda: loop.connection_table.open == 0)
    loop.settle()


def test_request_timeout_is_not_moved_by_drip_feeding(start: Callable[..., Loop]) -> None:
    loop = start()
    with loop.connect() as silent, loop.connect() as dripping:
        began = drip_at = time.monotonic()
        sent = 0
        while loop.counters["timeouts"] == 0:
            if time.monotonic() >= drip_at:
                drip_at += TIMES["request_timeout"] / 10
                dripping.send(BARE[sent : sent + 1])
                sent += 1
            loop.turn(0.005)
            assert time.monotonic() < began + 2
        assert time.monotonic() - began > TIMES["request_timeout"] * 0.9
        assert sent > 5
        assert loop.settle() == {"timeout": 2}
        assert until_end(silent) == (b"", "fin")


def test_timer_fires_for_the_earliest_deadline_of_all_states(start: Callable[..., Loop]) -> None:
    """A deadline that is set later and is earlier rearms the timer."""
    loop = start(request_timeout=30, terminator_grace=0.05, linger_timeout=30)
    with loop.connect(), loop.connect() as bare:
        loop.send(bare, BARE)
        began = time.monotonic()
        loop.until(lambda: loop.counters.replies == 1, seconds=2)
        assert time.monotonic() - began > 0.04
        assert bare.recv(1000) == REPLY
        assert loop.counters["open"] == 2
        loop.connection_table.close_all()
        assert loop.settle() == {"reply": 1, "shutdown": 1}
