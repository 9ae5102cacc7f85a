"""Raw descriptors and greenlets on gevent's loop.

gevent documents the loop interface as internal: only this file and `worker.slow_reply` use it.

**An exception in a callback.** gevent passes it to the hub's `handle_error`, and then stops the watcher if it watches a
descriptor: what it served is served no more, without a sign. Loops that are written in Python raise it in the main
greenlet besides. So no exception leaves a callback of a `Readable` (`_fastpath.Guarded`, in C, which costs 20 ns for
each call; a function in Python around the callback would cost 150, and could itself fail for want of memory). It is
reported, and the callback is called again after RETRY_AFTER. A greenlet that serves as long as the process runs begins
again after RESTART_AFTER (`run_again`).

**No memory.** A MemoryError may leave anything half done in gevent, greenlet or CPython, such as a connection whose
greenlet never starts. A child process therefore ends (`report_errors`). Without that, as in an embedding program, it is
reported like any other exception.
"""

import sys
import weakref
from collections.abc import Callable
from typing import NoReturn

import gevent
import gevent.hub

from flashpol._fastpath import Guarded
from flashpol.log.handler import log

READ = 1
# Seconds until a callback that raised is called again, if its descriptor is still readable. One that always raises
# costs 20 tracebacks a second; the log limits their lines.
RETRY_AFTER = 0.05
# Seconds until a greenlet that is to run as long as the process does begins again.
RESTART_AFTER = 1.0
# Priorities of a watcher, 0 without one: in each round of the loop the callbacks of higher ones come first.
LOW, HIGH = -1, 1


def start_greenlet(function: Callable[..., object], *args: object) -> None:
    """Run `function` in a bare greenlet, in the next turn of the loop. An exception is reported; the caller does not
    learn of it."""
    gevent.spawn_raw(function, *args)


def sleep_until_switched() -> Callable[[], object]:
    """What a greenlet calls to sleep until code in the hub switches to it."""
    switch: Callable[[], object] = gevent.get_hub().switch
    return switch


def parent_of_greenlets() -> gevent.hub.Hub:
    """The hub. A greenlet that ends runs its parent on, and any other would take that for its own wake-up."""
    return gevent.get_hub()


def attempt(function: Callable[[], object], what: str) -> bool:
    """Call `function`. False if it raised, which is reported. what: its name in the log."""
    try:
        function()
    except Exception as error:
        _report(error, what)
        return False
    return True


def run_again(function: Callable[[], object], what: str) -> None:
    """Call `function` until it returns: again after RESTART_AFTER whenever it raises. For a greenlet."""
    while not attempt(function, what):
        gevent.sleep(RESTART_AFTER)


def import_late_modules() -> None:
    """Import what a look-up of a name imports when it is first made: afterwards a chroot or the user's rights may hide
    it. gevent imports its resolver then, and `socket.getaddrinfo` the codec of host names."""
    import encodings.idna  # noqa: F401

    import gevent.threadpool

    _ = gevent.get_hub().resolver_class


# ----------------------------------------------------------------------------------------------------------- exceptions


class _Reaction:
    """Of this process. on_memory_error: ends it; None: a MemoryError is reported like any other exception."""

    on_memory_error: Callable[[], NoReturn] | None = None


def report_errors(on_memory_error: Callable[[], NoReturn]) -> None:
    """In a process that has the hub for itself: log what greenlets and callbacks raise, and what Python cannot raise,
    as in a finalizer. gevent itself would print it, and block while the reader of stderr does not read.

    on_memory_error: called for a MemoryError among them; ends the process.
    """
    _Reaction.on_memory_error = on_memory_error
    gevent.get_hub().print_exception = lambda context, kind, error, trace: _report(error, "a greenlet")
    sys.excepthook = lambda kind, error, trace: _report(error, "a callback")
    sys.unraisablehook = lambda found: _report(found.exc_value, "a finalizer")


def _report(error: BaseException | None, what: str) -> None:
    end = _Reaction.on_memory_error
    try:
        if end is None or not isinstance(error, MemoryError):
            log.error("%s failed", what, exc_info=error, extra={"event": "hub-error"})
            return
    except MemoryError:
        if end is None:
            raise
    end()


# ------------------------------------------------------------------------------------------------------------- watchers


class Readable:
    """Calls back in the hub whenever `fd` is readable, from `start` to `close`, also after the callback has raised.

    what: what is read there, for the log. wake: makes `fd` readable, if that can be done from within. priority: LOW if
    the callback takes long and others should not wait for it, HIGH if others depend on what it reads.
    """

    def __init__(
        self,
        fd: int,
        callback: Callable[[], object],
        what: str,
        wake: Callable[[], object] | None = None,
        priority: int | None = None,
    ) -> None:
        self.fd = fd
        self.what = what
        self.wake = wake
        self.is_started = False
        self.is_paused = False
        self._guarded = Guarded(callback, self._retry_later)
        loop = gevent.get_hub().loop
        self._watcher = loop.io(fd, READ, priority=priority)
        self._timer = loop.timer(0)
        _readables.add(self)

    @property
    def returned(self) -> int:
        """How often the callback has returned."""
        return self._guarded.returned

    @property
    def is_watching(self) -> bool:
        """gevent's loop watches the descriptor, or will after a pause."""
        return bool(self._watcher.active or self._timer.active)

    def start(self) -> None:
        self._watcher.start(self._guarded.call)
        self.is_started, self.is_paused = True, False

    def pause(self, seconds: float) -> None:
        """Stop, and start again after `seconds`."""
        self._start_later(seconds)
        self.is_paused = True

    def _start_later(self, seconds: float) -> None:
        # The timer first: if there is no memory for it, the watcher goes on.
        timer = gevent.get_hub().loop.timer(seconds)
        timer.start(self.start)
        self._timer.close()
        self._timer = timer
        self._watcher.stop()

    def _retry_later(self, error: BaseException) -> None:
        """The callback raised."""
        try:
            if isinstance(error, Exception):
                _report(error, f"a callback ({self.what})")
            else:  # KeyboardInterrupt and SystemExit are raised in the main greenlet
                gevent.get_hub().handle_error(self, type(error), error, error.__traceback__)
        finally:
            if self.is_started:  # the callback may have closed it
                self.is_paused = False
                self._start_later(RETRY_AFTER)

    def close(self) -> None:
        """Must be called before `fd` is closed."""
        self.is_started = False
        for watcher in (self._timer, self._watcher):
            watcher.stop()
            watcher.close()


_readables: "weakref.WeakSet[Readable]" = weakref.WeakSet()


def started() -> list[Readable]:
    """The Readables of this process that were started and are not closed."""
    return [each for each in _readables if each.is_started]
