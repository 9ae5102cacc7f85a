"""Raw descriptors on gevent's loop. The loop interface is documented as internal: used here and in `conversation`."""

import signal
import socket
import sys
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from flashpol.process.control import MOST_BYTES, MOST_SOCKETS, Begin, HandOver, StandDown, StandIn, decode

READ = 1


class Stop:
    """The end of a process that serves: `event` is set when it comes.

    begun: set when the process may accept, or is to end before it did. urgent: set when the server ends, which may be
    later than a reload. kept: None if the server ends. After a reload, the numbers of those listeners that the next
    generation serves too, on the same sockets: their accept queues are no longer ours. on_sibling: called before that,
    when a sibling stops accepting or does so again, with the message and the sockets that came with it.
    """

    def __init__(self) -> None:
        self.begun = Event()
        self.event = Event()
        self.urgent = Event()
        self.kept: frozenset[int] | None = None
        self.on_sibling: Callable[[StandIn | StandDown, Sequence[socket.socket]], object] = _close_all

    @classmethod
    def on(cls, line: socket.socket) -> "Stop":
        """Set by SIGTERM, by a message in `line` (see `handover`), or when its other end is closed."""
        stop = cls()
        gevent.signal_handler(signal.SIGTERM, stop.end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

        def readable() -> None:
            data, files, *_ = socket.recv_fds(line, MOST_BYTES, MOST_SOCKETS, socket.MSG_CMSG_CLOEXEC)
            message, sockets = decode(data), [socket.socket(fileno=fd) for fd in files]
            if message is None:
                watcher.close()
                stop.end()
            elif stop.event.is_set():
                _close_all(message, sockets)
            elif isinstance(message, Begin):
                stop.begun.set()
            elif isinstance(message, HandOver):
                stop.kept = message.kept
                stop.event.set()
                stop.begun.set()
            else:
                try:
                    stop.on_sibling(message, sockets)
                except Exception:  # whatever it is, the end of the line must be heard
                    gevent.get_hub().handle_error(stop, *sys.exc_info())

        watcher = Readable(line.fileno(), readable)
        watcher.start()
        return stop

    def end(self) -> None:
        self.event.set()
        self.urgent.set()
        self.begun.set()


def _close_all(_: object, sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def start_greenlet(function: Callable[..., object], *args: object) -> None:
    """Run it in a bare greenlet, in the next turn of the loop. What it raises is reported, and nobody else learns."""
    gevent.spawn_raw(function, *args)


def sleep_until_switched() -> Callable[[], object]:
    """What a greenlet calls that has nothing to do before somebody in the hub switches to it."""
    switch: Callable[[], object] = gevent.get_hub().switch
    return switch


def report_errors(report: Callable[[BaseException], object]) -> None:
    """What greenlets and callbacks raise goes to `report`; gevent would print it, and wait for whoever reads stderr."""
    gevent.get_hub().print_exception = lambda context, kind, error, trace: report(error)


class Readable:
    """Calls back in the hub whenever `fd` is readable. The callback must not raise: gevent would stop the watcher."""

    def __init__(self, fd: int, callback: Callable[[], object]) -> None:
        self._callback = callback
        loop = gevent.get_hub().loop
        self._watcher = loop.io(fd, READ)
        self._timer = loop.timer(0)

    def start(self) -> None:
        self._watcher.start(self._callback)

    def pause(self, seconds: float) -> None:
        """Stop, and start again after `seconds`."""
        # In this order: if there is no memory for the timer, the watcher goes on.
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(self.start)
        self._timer.close()
        self._timer = timer
        self._watcher.stop()

    def close(self) -> None:
        """To be called before `fd` is closed."""
        for watcher in (self._timer, self._watcher):
            watcher.stop()
            watcher.close()
