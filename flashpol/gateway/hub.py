"""Raw descriptors on gevent's loop. The loop interface is documented as internal, so all use of it is in this file."""

from collections.abc import Callable

import gevent

READ = 1


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
        self._watcher.stop()
        self._timer.close()
        self._timer = gevent.get_hub().loop.timer(seconds)
        self._timer.start(self.start)

    def close(self) -> None:
        """To be called before `fd` is closed."""
        for watcher in (self._timer, self._watcher):
            watcher.stop()
            watcher.close()
