"""Control messages: what is encoded, and what the kernel passes on."""

import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.config import MAX_LISTENERS
from flashpol.process.control import (
    MAX_MESSAGE_BYTES,
    MAX_SOCKETS,
    AdoptSockets,
    Drain,
    FollowLog,
    Message,
    PeerLines,
    ReleaseSockets,
    StartAccepting,
    decode,
    encode,
    receive,
)
from flashpol.process.lines import INCARNATIONS

numbers = st.integers(0, MAX_LISTENERS - 1)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(StartAccepting),
    st.builds(Drain, st.frozensets(numbers)),
    st.builds(AdoptSockets, numbers, st.lists(numbers).map(tuple)),
    st.builds(ReleaseSockets, numbers),
    st.builds(FollowLog),
    st.builds(PeerLines, st.lists(st.integers(0, INCARNATIONS - 1)).map(tuple)),
)


@given(messages)
def test_decode_of_an_encoded_message_returns_it(message: Message) -> None:
    assert (decode(encode(message)), type(decode(encode(message)))) == (message, type(message))


def test_decode_of_a_closed_control_socket_is_none() -> None:
    assert decode(b"") is None


@pytest.mark.parametrize(
    "message",
    [
        Drain(frozenset(range(MAX_LISTENERS))),
        AdoptSockets(1, tuple(range(MAX_SOCKETS))),
        ReleaseSockets(1),
        PeerLines(tuple(range(MAX_SOCKETS))),
    ],
)
def test_encode_of_the_largest_message_fits_one_read(message: Message) -> None:
    assert len(encode(message)) <= MAX_MESSAGE_BYTES


def test_send_fds_with_max_sockets_arrives_whole() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        message = AdoptSockets(1, (0,) * MAX_SOCKETS)
        socket.send_fds(ours, [encode(message)], [ours.fileno()] * MAX_SOCKETS)
        data, files = receive(theirs)
        inherited = [fd for fd in files if os.get_inheritable(fd)]
        for fd in files:
            socket.close(fd)
        assert (decode(data), len(files), inherited) == (message, MAX_SOCKETS, [])


def test_receive_without_a_message_does_not_wait() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(BlockingIOError):
        receive(theirs)
