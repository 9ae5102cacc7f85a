"""The greenlet that finishes a reply: writable, deadline, shutdown. The Parker is played by the test."""

import socket
import time
from collections.abc import Iterator

import gevent
import pytest

from flashpol.worker.slow_reply import finish_reply


class Reply:
    """Stands for the Parker: sends `total` bytes as the kernel takes them, and remembers how it ended."""

    def __init__(self, sock: socket.socket, total: int) -> None:
        self._sock = sock
        self.left = total
        self.resumed = 0
        self.ends: list[str] = []

    def send_more(self, fd: int) -> bool:
        assert fd == self._sock.fileno()
        self.resumed += 1
        try:
            while self.left:
                self.left -= self._sock.send(bytes(min(self.left, 1 << 16)))
        except BlockingIOError:
            return False
        self.ends.append("reply")
        return True

    def close_as(self, fd: int, outcome: str) -> None:
        assert fd == self._sock.fileno()
        self.ends.append(outcome)


@pytest.fixture
def pair(no_leaked_files: None) -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


Pair = tuple[socket.socket, socket.socket]


def read_all(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            count += len(sock.recv(1 << 16))
        except BlockingIOError:
            return count


def test_what_fits_is_sent_at_once(pair: Pair) -> None:
    reply = Reply(pair[0], 100)
    finish_reply(reply, pair[0].fileno(), 5)
    assert (reply.ends, reply.resumed) == (["reply"], 1)


def test_resumes_when_the_client_has_read_and_only_then(pair: Pair) -> None:
    total = 2 << 20
    reply = Reply(pair[0], total)
    conversation = gevent.spawn(finish_reply, reply, pair[0].fileno(), 5)
    gevent.sleep(0.02)
    assert (reply.resumed, reply.ends) == (1, [])  # not writable: no turn of the loop is spent on it
    received = 0
    deadline = time.monotonic() + 4
    while received < total:
        received += read_all(pair[1])
        gevent.sleep(0)
        assert time.monotonic() < deadline
    conversation.get(timeout=4)
    assert reply.ends == ["reply"]


def test_the_deadline_ends_it_as_a_time_out(pair: Pair) -> None:
    reply = Reply(pair[0], 2 << 20)
    began = time.monotonic()
    finish_reply(reply, pair[0].fileno(), 0.1)
    assert 0.09 < time.monotonic() - began < 3
    assert reply.ends == ["timeout"]


def test_the_deadline_is_for_the_whole_reply(pair: Pair) -> None:
    """A client that keeps reading a little gains nothing."""
    reply = Reply(pair[0], 1 << 40)
    began = time.monotonic()
    conversation = gevent.spawn(finish_reply, reply, pair[0].fileno(), 0.2)
    while not conversation.ready():
        read_all(pair[1])
        gevent.sleep(0.005)
        assert time.monotonic() - began < 4
    assert reply.ends == ["timeout"]
    assert reply.resumed > 3


def test_killed_it_ends_as_shutdown(pair: Pair) -> None:
    reply = Reply(pair[0], 2 << 20)
    conversation = gevent.spawn(finish_reply, reply, pair[0].fileno(), 5)
    gevent.sleep(0)
    conversation.kill()
    assert reply.ends == ["shutdown"]
    assert conversation.successful()


def test_another_ones_time_out_passes_through_and_leaves_nothing_open(pair: Pair) -> None:
    reply = Reply(pair[0], 2 << 20)
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as outer:
        finish_reply(reply, pair[0].fileno(), 5)
    assert caught.value is outer
    assert reply.ends == ["shutdown"]


def test_no_timer_is_left_behind(pair: Pair) -> None:
    finish_reply(Reply(pair[0], 100), pair[0].fileno(), 0.02)
    gevent.sleep(0.05)  # a timer left running would raise here
    assert read_all(pair[1]) == 100
