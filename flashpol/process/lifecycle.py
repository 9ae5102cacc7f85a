"""The life of a child process: what it does first, and how the arbiter controls it afterwards.

fork -> enter_child: its name, its signals, its rights -> ChildControl, on the control socket:

    up, `accepting` not set    all other workers of its generation come up too before one accepts
    accepting                  it accepts
    draining                   it stops accepting and finishes open connections, for `drain_timeout` at most
    draining and hurry         the whole server stops: `shutdown_timeout` applies
"""

import os
import signal
import socket
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from flashpol.hub import HIGH, Readable
from flashpol.log.handler import redirect
from flashpol.process.control import (
    AdoptSockets,
    Drain,
    FollowLog,
    Message,
    PeerLines,
    ReleaseSockets,
    StartAccepting,
    decode,
    receive,
)
from flashpol.process.privileges import Privileges, name_process


def enter_child(name: str, privileges: Privileges) -> None:
    """Called in a new child once it has imported what it needs."""
    name_process(name)
    # Ctrl-C and a closed terminal signal the whole foreground group; the arbiter alone decides what they mean.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    privileges.drop()
    # SIGTERM stays blocked until ChildControl handles it: a child that is stopped while it starts still empties its
    # accept queue.
    signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGTERM,))


class ChildControl:
    """Control of one child process, driven by messages on its control socket.

    `accepting`: the child may start to accept. `draining`: it must stop accepting and finish open connections.
    `hurry`: the whole server is stopping, so `shutdown_timeout` applies. A child that is to drain before it accepted
    has `accepting` set too, so that it empties its queue.

    kept: None if the whole server stops. After a reload, the numbers of the listeners whose accept queues the next
    generation empties. on_failover: called with an AdoptSockets or ReleaseSockets message and the sockets that came
    with it, until `draining` is set.

    incarnation: of a worker, the number by which other workers know it. on_lines: called with a PeerLines message and
    the sockets that came with it, also while it drains. They are fewer than its incarnations if no descriptor was free.
    """

    def __init__(self, incarnation: int = 0) -> None:
        self.incarnation = incarnation
        self.accepting = Event()
        self.draining = Event()
        self.hurry = Event()
        self.kept: frozenset[int] | None = None
        self.on_failover: Callable[[AdoptSockets | ReleaseSockets, Sequence[socket.socket]], object] = _close_all
        self.on_lines: Callable[[PeerLines, Sequence[socket.socket]], object] = _close_all
        self._control: socket.socket | None = None
        self._watcher: Readable | None = None

    @classmethod
    def on(cls, control: socket.socket, incarnation: int = 0) -> "ChildControl":
        """Driven by SIGTERM, by the messages on `control`, and by its end: the arbiter closed it, or is gone."""
        made = cls(incarnation)
        gevent.signal_handler(signal.SIGTERM, made.stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        made._control = control
        # Clients come after the messages: one may ask for a session of a worker whose line is in them.
        made._watcher = Readable(control.fileno(), made._receive_all, "messages of the arbiter", priority=HIGH)
        made._watcher.start()
        return made

    def drain(self, kept: frozenset[int]) -> None:
        """Others serve from now on."""
        self.kept = kept
        self.draining.set()
        self.accepting.set()

    def stop(self) -> None:
        """The whole server stops, which may come later than a drain."""
        self.draining.set()
        self.hurry.set()
        self.accepting.set()

    def _receive_all(self) -> None:
        """The messages that are there."""
        if self._control is None or self._watcher is None:
            raise AssertionError("the watcher is made with the control socket")
        while self._watcher.is_started:
            try:
                data, files = receive(self._control)
            except BlockingIOError:
                return
            message = decode(data)
            if message is None:
                self._watcher.close()
                self.stop()
            else:
                self._obey(message, files)

    def _obey(self, message: Message, files: Sequence[int]) -> None:
        if isinstance(message, FollowLog):  # also of a child that drains
            for fd in files:  # one, or none if the child had no descriptor free
                redirect(fd)
                os.close(fd)
            return
        sockets = [socket.socket(fileno=fd) for fd in files]
        match message:
            case PeerLines():  # also for a child that drains
                self.on_lines(message, sockets)
            case _ if self.draining.is_set():
                _close_all(message, sockets)
            case StartAccepting():
                self.accepting.set()
            case Drain(kept):
                self.drain(kept)
            case AdoptSockets() | ReleaseSockets():
                self.on_failover(message, sockets)


def _close_all(_: object, sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
