"""Watch the memory of a server while it is attacked."""

import threading
from contextlib import suppress
from typing import Self

from bench import BenchError
from faults.server import Server

SECONDS = 0.05  # between two looks


class MemoryWatch:
    """A context manager. `grown`: the most bytes that the server's processes have had more than at its begin."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self.grown = 0

    def __enter__(self) -> Self:
        self._before = self._server.resident()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(SECONDS):
            with suppress(OSError, KeyError, BenchError):  # a process ended meanwhile
                self.grown = max(self.grown, self._server.resident() - self._before)
