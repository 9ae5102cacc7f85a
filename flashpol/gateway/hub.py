"""Raw descriptors on gevent's loop. The loop interface is documented as internal: used here and in `conversation`."""

import os
import select
import signal
from collections.abc import Callable

import gevent
from gevent.event import Event

from flashpol.gateway.handover import decode

READ = 1


class Stop:
    """The end of a process that serves: `event` is set when it comes.

    urgent: set when the server ends, which may be later than a reload. kept: None if the server ends. After a reload,
    the numbers of those listeners that the next generation serves too, on the same sockets: their accept queues are no
    longer ours.
    """

    def __init__(self) -> None:
        self.event = Event()
        self.urgent = Event()
        self.kept: frozenset[int] | None = None

    @classmethod
    def on(cls, pipe: int) -> "Stop":
        """Set by SIGTERM, by a message in `pipe` (see `handover`), or when its other end is closed."""
        stop = cls()
        gevent.signal_handler(signal.SIGTERM, stop.end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

        def readable() -> None:
            message = decode(os.read(pipe, select.PIPE_BUF))
            if message is None:
                watcher.close()
                stop.end()
            elif not stop.event.is_set():
                stop.kept = message
                stop.event.set()

        watcher = Readable(pipe, readable)
        watcher.start()
        return stop

    def end(self) -> None:
        self.event.set()
        self.urgent.set()


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
