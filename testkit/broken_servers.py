"""Servers that a test writes in a few lines, to show that a client notices what is wrong with them."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from testkit.polling import DEADLINE

Serve = Callable[[socket.socket], None]


@contextmanager
def broken_server(serve: Serve) -> Iterator[int]:
    """Call `serve` with each connection, in a thread of its own, until its client has closed. Yields the port."""
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(DEADLINE)
            serve(connection)

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listening socket was shut down: the end
            while True:
                threads.append(threading.Thread(target=one, args=(listening.accept()[0],), daemon=True))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        accepting = threading.Thread(target=accept, args=(listening,), daemon=True)
        accepting.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        accepting.join(DEADLINE)
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()
