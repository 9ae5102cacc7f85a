"""How fast and how many at once: a probe is a guest on the host that it asks."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TypeVar

# Connections to one host: so many a second, so many at the same time.
A_SECOND = 10.0
AT_ONCE = 4

T = TypeVar("T")


class Throttle:
    """The connections to one host. Shared by the threads that make them."""

    def __init__(self, a_second: float = A_SECOND, at_once: int = AT_ONCE) -> None:
        self._gap = 1 / a_second
        self._slots = threading.BoundedSemaphore(at_once)
        self._lock = threading.Lock()
        self._next = 0.0
        self.connections = 0

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Wait until one more may be made, and hold its slot."""
        with self._slots:
            with self._lock:
                start = max(self._next, monotonic())
                self._next = start + self._gap
                self.connections += 1
            sleep(max(0.0, start - monotonic()))
            yield


def side_by_side(jobs: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """Do the jobs in threads, so many at the same time; their results in order. Raises what the first one raised.

    The threads are daemons: Ctrl-C does not wait for a connection's deadline.
    """
    results: dict[int, T] = {}
    failures: dict[int, BaseException] = {}
    todo = iter(enumerate(jobs))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number, job = next(todo, (-1, None))
            if job is None:
                return
            try:
                results[number] = job()
            except BaseException as error:  # to whoever waits below
                failures[number] = error

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _, error in sorted(failures.items()):
        raise error
    return [results[number] for number in range(len(jobs))]
