"""finish_reply: writable, deadline, shutdown. A double of the ConnectionTable sends the reply."""

import socket
import time
from collections.abc import Iterator

import gevent
import pytest

from flashpol.worker.slow_reply import finish_reply


class Reply:
    """A double of the ConnectionTable: sends `total` bytes as the kernel takes them, and keeps how the reply ended."""

    def __init__(self, sock: socket.socket, total: int) -> None:
        self._sock = sock
        self.left = total
        self.calls = 0
        self.ends: list[str] = []

    def send_more(self, fd: int) -> bool:
        assert fd == self._sock.fileno()
        self.calls += 1
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


def test_finish_reply_sends_what_fits_at_once(pair: Pair) -> None:
    reply = Reply(pair[0], 100)
    finish_reply(reply, pair[0].fileno(), 5)
    assert (reply.ends, reply.calls) == (["reply"], 1)


def test_finish_reply_sends_more_only_when_writable(pair: Pair) -> None:
    total = 2 << 20
    reply = Reply(pair[0], total)
    greenlet = gevent.spawn(finish_reply, reply, pair[0].fileno(), 5)
    gevent.sleep(0.02)
    assert (reply.calls, reply.ends) == (1, [])  # not writable, so send_more is not called
    received = 0
    deadline = time.monotonic() + 4
    while received < total:
        received += read_all(pair[1])
        gevent.sleep(0)
        assert time.monotonic() < deadline
    greenlet.get(timeout=4)
    assert reply.ends == ["reply"]


def test_finish_reply_after_its_timeout_ends_as_timeout(pair: Pair) -> None:
    reply = Reply(pair[0], 2 << 20)
    began = time.monotonic()
    finish_reply(reply, pair[0].fileno(), 0.1)
    assert 0.09 < time.monotonic() - began < 3
    assert reply.ends == ["timeout"]


def test_finish_reply_timeout_is_for_the_whole_reply(pair: Pair) -> None:
    """A client that reads slowly gains no time."""
    reply = Reply(pair[0], 1 << 40)
    began = time.monotonic()
    greenlet = gevent.spawn(finish_reply, reply, pair[0].fileno(), 0.2)
    while not greenlet.ready():
        read_all(pair[1])
        gevent.sleep(0.005)
        assert time.monotonic() - began < 4
    assert reply.ends == ["timeout"]
    assert reply.calls > 3


def test_finish_reply_in_a_killed_greenlet_ends_as_shutdown(pair: Pair) -> None:
    reply = Reply(pair[0], 2 << 20)
    greenlet = gevent.spawn(finish_reply, reply, pair[0].fileno(), 5)
    gevent.sleep(0)
    greenlet.kill()
    assert reply.ends == ["shutdown"]
    assert greenlet.successful()


def test_finish_reply_passes_on_another_timeout_and_closes(pair: Pair) -> None:
    reply = Reply(pair[0], 2 << 20)
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.05) as outer:
        finish_reply(reply, pair[0].fileno(), 5)
    assert caught.value is outer
    assert reply.ends == ["shutdown"]


def test_finish_reply_leaves_no_timer(pair: Pair) -> None:
    finish_reply(Reply(pair[0], 100), pair[0].fileno(), 0.02)
    gevent.sleep(0.05)  # a timer left running would raise here
    assert read_all(pair[1]) == 100
