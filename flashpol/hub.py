"""Raw descriptors and greenlets on gevent's loop.

gevent documents the loop interface as internal: only this file and `worker.slow_reply` use it.
"""

from collections.abc import Callable
from types import TracebackType

import gevent

READ = 1


def start_greenlet(function: Callable[..., object], *args: object) -> None:
    """Run `function` in a bare greenlet, in the next turn of the loop. An exception goes to `report_errors`' callback;
    the caller does not learn of it."""
    gevent.spawn_raw(function, *args)


def sleep_until_switched() -> Callable[[], object]:
    """What a greenlet calls to sleep until code in the hub switches to it."""
    switch: Callable[[], object] = gevent.get_hub().switch
    return switch


def report_errors(report: Callable[[BaseException], object]) -> None:
    """Exceptions of greenlets and callbacks go to `report`. gevent itself would print them, and block while the reader
    of stderr does not read."""
    gevent.get_hub().print_exception = lambda context, kind, error, trace: report(error)


def handle_error(
    context: object, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    """Have gevent handle an exception of a callback as it does those of its own."""
    gevent.get_hub().handle_error(context, kind, error, trace)


def import_late_modules() -> None:
    """Import what a look-up of a name imports when it is first made: afterwards a chroot or the user's rights may hide
    it. gevent imports its resolver then, and `socket.getaddrinfo` the codec of host names."""
    import encodings.idna  # noqa: F401

    import gevent.threadpool

    _ = gevent.get_hub().resolver_class


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
        # The timer first: if there is no memory for it, the watcher goes on.
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(self.start)
        self._timer.close()
        self._timer = timer
        self._watcher.stop()

    def close(self) -> None:
        """Must be called before `fd` is closed."""
        for watcher in (self._timer, self._watcher):
            watcher.stop()
            watcher.close()
