"""What systemd is told (sd_notify(3)): ready, reloading, stopping, a line of status, and that we are alive."""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Does nothing where nobody wants to know: NOTIFY_SOCKET is not set."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        # An abstract address is written with an @ for its NUL.
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        microseconds = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Twice in the time within which systemd wants to hear of us; None: it does not.
        self.watchdog_interval = int(microseconds) / 2e6 if ours and microseconds.isdecimal() else None

    def send(self, *lines: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)

    def ready(self, status: str) -> None:
        self.send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=loading the configuration")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=finishing what is inside")

    def alive(self) -> None:
        self.send("WATCHDOG=1")
