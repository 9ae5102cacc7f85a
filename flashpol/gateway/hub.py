"""Raw descriptors on gevent's loop. The loop interface is documented as internal, so all use of it is in this file."""

import signal
from collections.abc import Callable

import gevent
from gevent.event import Event

READ = 1


def stop_event(pipe: int) -> Event:
    """Set by SIGTERM, or when the other end of `pipe` is closed."""
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))

    def ended() -> None:
        watcher.close()
        stop.set()

    watcher = Readable(pipe, ended)
    watcher.start()
    return stop


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
