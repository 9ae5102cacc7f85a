"""A client of RTMPT for tests of balancers: one session, on one connection after the other or on one for each request.

It sends words, each once, and expects to get the same bytes back, in order.
"""

import http.client
import socket
import threading
import time
from collections.abc import Callable

from testkit.polling import DEADLINE

Connect = Callable[[], socket.socket]


class TunnelClient:
    def __init__(self, connect: Connect, *, keep_alive: bool = True) -> None:
        self.connect, self.keep_alive = connect, keep_alive
        self.number = 0
        self.sent, self.received = bytearray(), bytearray()
        self.connections = 0
        self.status = 0  # of the last reply
        self._http: http.client.HTTPConnection | None = None
        self.id = self._post("/open/1", b"\0").decode().rstrip("\n")

    def share_connection(self, other: "TunnelClient") -> None:
        """Send further requests on the other session's connection."""
        self._http = other._http

    def _post(self, path: str, body: bytes) -> bytes:
        """A request whose connection ends before its reply is sent again, as browsers do, with the same number."""
        for _ in range(2):
            if not self._http:
                self._http = http.client.HTTPConnection("media.example.com", timeout=DEADLINE)
                self._http.sock = self.connect()
                self.connections += 1
            try:
                self._http.request("POST", path, body, {"Content-Type": "application/x-fcs"})
                response = self._http.getresponse()
                data = response.read()
            except (ConnectionError, http.client.BadStatusLine):
                self._http = None
                continue
            self.status = response.status
            if response.will_close or not self.keep_alive:
                self._http.close()
                self._http = None
            return data if self.status == 200 else b""
        raise ConnectionError("two connections ended before the reply")

    def _request(self, kind: str, body: bytes) -> bool:
        """Whether the session goes on."""
        data = self._post(f"/{kind}/{self.id}/{self.number}", body)
        self.number += 1
        self.received += data[1:]
        return self.status == 200

    def send(self, data: bytes) -> bool:
        self.sent += data
        return self._request("send", data)

    def poll(self) -> bool:
        return self._request("idle", b"\0")

    def close(self) -> int:
        self._post(f"/close/{self.id}/{self.number}", b"\0")
        return self.status

    def fetch_all(self) -> bool:
        """Poll until everything has come back."""
        deadline = time.monotonic() + DEADLINE
        while len(self.received) < len(self.sent) and time.monotonic() < deadline:
            if not self.poll():
                return False
        return self.received == self.sent


class Talk:
    """A session that sends and polls in a thread until it is ended, or the server ends it."""

    def __init__(self, connect: Connect, *, keep_alive: bool = True) -> None:
        self.client = TunnelClient(connect, keep_alive=keep_alive)
        self.rounds = 0
        self.error: Exception | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return self.client.id[0]

    @property
    def ended(self) -> bool:
        """By the server."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                word = f"{self.client.id} {self.rounds}\n".encode()
                if not (self.client.send(word) and self.client.poll()):
                    return
                self.rounds += 1
                self._ending.wait(0.02)
        except Exception as error:
            self.error = error

    def end(self) -> bool:
        """Whether all was well: every byte came back once and in order, and the session could be closed."""
        self._ending.set()
        self._thread.join(DEADLINE)
        if self.error:
            raise self.error
        return self.client.status == 200 and self.client.fetch_all() and self.client.close() == 200
