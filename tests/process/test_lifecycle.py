"""The first steps of a child, and the control messages that it obeys."""

import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import gevent
import pytest

from flashpol.hub import Readable
from flashpol.process.control import AdoptSockets, Drain, Message, PeerLines, ReleaseSockets, StartAccepting, encode
from flashpol.process.lifecycle import ChildControl, enter_child
from flashpol.process.privileges import Privileges
from testkit.polling import eventually
from testkit.processes import forked, status


def signals(pid: int, field: str) -> set[signal.Signals]:
    mask = int(status(pid)[field], 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def enter() -> None:
    enter_child("worker 7", Privileges())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))  # as a child does once it handles it


def test_enter_child_ignores_the_terminals_signals_and_ends_by_sigterm() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1))
    try:
        with forked(enter) as child:
            assert signals(child.pid, "SigBlk") == set()
            assert {signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1} <= signals(child.pid, "SigIgn")
            assert signal.SIGTERM not in signals(child.pid, "SigIgn") | signals(child.pid, "SigCgt")
            assert Path(f"/proc/{child.pid}/comm").read_text() == "flashpol worker"[:15] + "\n"
            child.kill(signal.SIGINT)
            child.kill(signal.SIGTERM)
            eventually(lambda: not child.alive, "its end by SIGTERM")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_enter_child_blocks_sigterm_until_it_is_handled() -> None:
    with forked(lambda: enter_child("admin", Privileges())) as child:
        child.kill(signal.SIGTERM)
        assert signals(child.pid, "SigBlk") == {signal.SIGTERM}
        assert child.alive


# ------------------------------------------------------------------------------------------------------ ChildControl


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, ChildControl]]:
    """The arbiter's end, and the child's control in this process."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    handler, mask = signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with ours, its:
        control = ChildControl.on(its)
        yield ours, control
        ours.close()
        control.hurry.wait(5)
    signal.signal(signal.SIGTERM, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def states(control: ChildControl) -> tuple[bool, bool, bool]:
    return control.accepting.is_set(), control.draining.is_set(), control.hurry.is_set()


def send(ours: socket.socket, message: Message, *sockets: socket.socket) -> None:
    socket.send_fds(ours, [encode(message)], [sock.fileno() for sock in sockets])
    gevent.sleep(0.05)


def test_child_control_start_accepting_then_drain_then_close_go_through_its_states(
    pair: tuple[socket.socket, ChildControl],
) -> None:
    ours, control = pair
    assert states(control) == (False, False, False)
    send(ours, StartAccepting())
    assert states(control) == (True, False, False)
    send(ours, Drain(frozenset({0, 3})))
    assert states(control) == (True, True, False)
    assert control.kept == {0, 3}
    ours.close()
    assert control.hurry.wait(5)
    assert control.kept == {0, 3}, "a reload had come first"


def test_child_control_closed_before_it_accepts_stops_without_kept_listeners(
    pair: tuple[socket.socket, ChildControl],
) -> None:
    ours, control = pair
    ours.close()
    assert control.hurry.wait(5)
    assert (states(control), control.kept) == ((True, True, True), None)


def test_child_control_failover_messages_bring_sockets_until_it_drains(
    pair: tuple[socket.socket, ChildControl],
) -> None:
    ours, control = pair
    heard: list[tuple[Message, int]] = []

    def hear(message: AdoptSockets | ReleaseSockets, sockets: object) -> None:
        heard.append((message, len(sockets)))  # type: ignore[arg-type]
        for sock in sockets:  # type: ignore[attr-defined]
            sock.close()

    control.on_failover = hear
    send(ours, AdoptSockets(1, (0, 1)), ours, ours)
    send(ours, ReleaseSockets(1))
    assert heard == [(AdoptSockets(1, (0, 1)), 2), (ReleaseSockets(1), 0)]
    send(ours, Drain(frozenset()))
    before = len(os.listdir("/proc/self/fd"))
    send(ours, AdoptSockets(1, (0,)), ours)
    assert len(heard) == 2
    assert len(os.listdir("/proc/self/fd")) == before, "sockets that come too late are closed"


def test_child_control_whose_failover_hook_raises_can_still_be_stopped(
    pair: tuple[socket.socket, ChildControl],
) -> None:
    ours, control = pair

    def fail(*_: object) -> None:
        raise OSError("no luck")

    control.on_failover = fail
    send(ours, ReleaseSockets(1))
    send(ours, Drain(frozenset()))
    assert control.draining.is_set()


def test_child_control_lines_come_also_while_it_drains(pair: tuple[socket.socket, ChildControl]) -> None:
    ours, control = pair
    heard: list[tuple[PeerLines, int]] = []

    def hear(message: PeerLines, lines: Sequence[socket.socket]) -> None:
        heard.append((message, len(lines)))
        for line in lines:
            line.close()

    control.on_lines = hear
    send(ours, PeerLines((7, 3843)), ours, ours)
    send(ours, Drain(frozenset()))
    send(ours, PeerLines((8,)), ours)
    assert heard == [(PeerLines((7, 3843)), 2), (PeerLines((8,)), 1)]


def test_child_control_without_a_hook_closes_lines(pair: tuple[socket.socket, ChildControl]) -> None:
    ours, _ = pair
    line, other = socket.socketpair()
    with line:
        with other:
            send(ours, PeerLines((7,)), other)
        line.settimeout(5)
        assert line.recv(1) == b""


def test_child_control_obeys_all_messages_that_are_there_before_a_client_is_served(
    pair: tuple[socket.socket, ChildControl],
) -> None:
    """The client may ask for a session of a worker whose line is in the last of them."""
    ours, control = pair
    order: list[object] = []
    client, server = socket.socketpair()
    with client, server:
        reader = Readable(server.fileno(), lambda: (order.append("client"), server.recv(1)), "a client")
        reader.start()
        control.on_lines = lambda message, _: order.append(message.incarnations[0])
        client.send(b"x")
        for number in range(3):
            ours.send(encode(PeerLines((number,))))
        gevent.sleep(0.05)
        reader.close()
    assert order == [0, 1, 2, "client"]


def test_child_control_has_the_incarnation_that_it_was_made_with() -> None:
    assert (ChildControl().incarnation, ChildControl(3843).incarnation) == (0, 3843)
