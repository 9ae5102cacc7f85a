"""Limits on how fast and how many connections a probe makes: it is a guest on the host that it probes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

# Connections to one host: per second, and open at the same time.
MAX_RATE = 10.0
MAX_CONCURRENT = 4


class Throttle:
    """Limits the connections to one host. Shared by the threads that open them; `connections` counts them."""

    def __init__(self, max_rate: float = MAX_RATE, max_concurrent: int = MAX_CONCURRENT) -> None:
        self._interval = 1 / max_rate
        self._slots = threading.BoundedSemaphore(max_concurrent)
        self._lock = threading.Lock()
        self._next_start = 0.0
        self.connections = 0

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Wait until one more connection may be opened, and hold its slot until it is closed."""
        with self._slots:
            with self._lock:
                start = max(self._next_start, monotonic())
                self._next_start = start + self._interval
                self.connections += 1
            sleep(max(0.0, start - monotonic()))
            yield
