"""What a process is told when others go on with its work, or it with theirs."""

import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.config import MAX_LISTENERS
from flashpol.process.control import MOST_SOCKETS, Begin, HandOver, Message, StandDown, StandIn, decode, encode

numbers = st.integers(0, MAX_LISTENERS - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin),
    st.builds(HandOver, st.frozensets(numbers)),
    st.builds(StandIn, numbers, st.lists(numbers).map(tuple)),
    st.builds(StandDown, numbers),
)


@given(messages)
def test_there_and_back(message: Message) -> None:
    assert (decode(encode(message)), type(decode(encode(message)))) == (message, type(message))


def test_nobody_goes_on() -> None:
    assert decode(b"") is None


@pytest.mark.parametrize(
    "message", [HandOver(frozenset(range(MAX_LISTENERS))), StandIn(1, tuple(range(MOST_SOCKETS))), StandDown(1)]
)
def test_it_fits_a_read(message: Message) -> None:
    assert len(encode(message)) <= select.PIPE_BUF


def test_the_kernel_takes_so_many_sockets_in_one_message() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        message = StandIn(1, (0,) * MOST_SOCKETS)
        socket.send_fds(ours, [encode(message)], [ours.fileno()] * MOST_SOCKETS)
        data, files, *_ = socket.recv_fds(theirs, select.PIPE_BUF, MOST_SOCKETS)
        for fd in files:
            socket.close(fd)
        assert (decode(data), len(files)) == (message, MOST_SOCKETS)
