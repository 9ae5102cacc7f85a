"""A relay of TCP that cuts each connection after a random number of bytes: in a head, in a body, in a reply.

>>> with CuttingRelay(server.place, seed=1) as relay, FlashClient(relay.place, tries=20) as client:
...     client.send(data)
"""

import random
import socket
import threading
from contextlib import suppress
from typing import Self

from testkit.clients import reset
from testkit.polling import DEADLINE
from testkit.rtmpt_client import Address

LEAST = 1000  # bytes: the first request of a connection and its reply, if they are small


class CuttingRelay:
    """least, most: bytes in one direction after which a connection is cut, at the earliest and at the latest. A cut is
    FIN or RST on each side, and what was on its way is lost.
    """

    def __init__(self, server: Address, seed: int, least: int = LEAST, most: int = 200_000) -> None:
        self.server, self.least, self.most = server, least, most
        self.cuts = 0
        self.connections = 0
        self._random = random.Random(seed)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.place: Address = self._listening.getsockname()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                client.settimeout(DEADLINE)
                try:
                    server = socket.create_connection(self.server, DEADLINE)
                except OSError:  # it reloads, or has ended
                    client.close()
                    continue
                self.connections += 1
                # The direction that comes first to its limit ends it. /open, which a client cannot repeat, passes.
                limits = [self._random.randrange(self.least, self.most) for _ in range(2)]
                resets = [self._random.random() < 0.5 for _ in range(2)]
                _Pair(self, client, server, limits, resets).start()


class _Pair:
    def __init__(
        self, relay: CuttingRelay, client: socket.socket, server: socket.socket, limits: list[int], resets: list[bool]
    ) -> None:
        self.relay, self.sockets, self.limits, self.resets = relay, [client, server], limits, resets
        self._left = 2
        with relay._lock:
            relay._open.update(self.sockets)

    def start(self) -> None:
        for side in range(2):
            threading.Thread(target=self._copy, args=(side,), daemon=True).start()

    def _copy(self, side: int) -> None:
        source, target, limit = self.sockets[side], self.sockets[1 - side], self.limits[side]
        cut = False
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data[:limit])
                limit -= len(data)
                if cut := limit <= 0:
                    break
        with suppress(OSError):
            if not cut:
                target.shutdown(socket.SHUT_WR)
            else:
                for sock in self.sockets:
                    sock.shutdown(socket.SHUT_RD)  # wakes the other direction
        self._end(cut)

    def _end(self, cut: bool) -> None:
        """The last direction closes the sockets."""
        with self.relay._lock:
            self._left -= 1
            self.relay.cuts += cut
            if self._left:
                return
            self.relay._open.difference_update(self.sockets)
        for sock, with_reset in zip(self.sockets, self.resets, strict=True):
            if with_reset:
                reset(sock)
            else:
                sock.close()
