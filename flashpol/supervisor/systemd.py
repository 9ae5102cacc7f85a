"""systemd: the sockets that it passes (sd_listen_fds(3)), and notifications to it (sd_notify(3))."""

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from flashpol.config import ConfigError, SystemdSocket

FIRST_FD = 3  # SD_LISTEN_FDS_START
UNNAMED = "unknown"  # systemd's name for a socket without FileDescriptorName=


def listen_fds(environ: MutableMapping[str, str] = os.environ) -> dict[SystemdSocket, list[socket.socket]]:
    """The sockets by name, of which one may have several; none if they are for another process.

    The variables are removed, since they are for one process. Raises ConfigError for a socket that is not a listening
    TCP socket.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    found: dict[SystemdSocket, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not count.isdecimal():
        return found
    named = names.split(":") if names else []
    for number in range(int(count)):
        name = named[number] if number < len(named) else UNNAMED
        os.set_inheritable(FIRST_FD + number, False)
        try:
            sock = socket.socket(fileno=FIRST_FD + number)
            listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
                raise OSError
        except OSError:
            what = f"{SystemdSocket(name)}: systemd passed a descriptor that is not a listening TCP socket"
            raise ConfigError(f"{what}; use ListenStream=IP:PORT") from None
        sock.setblocking(False)
        found.setdefault(SystemdSocket(name), []).append(sock)
    return found


class Notifier:
    """Sends notifications to systemd; does nothing where NOTIFY_SOCKET is not set."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        # An abstract address begins with @ instead of NUL.
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        microseconds = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Half of the time within which systemd expects a notification; None if it expects none.
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

    def draining(self) -> None:
        """Not STOPPING=1, after which systemd would kill the service in TimeoutStopSec."""
        self.send("STATUS=draining open connections")

    def stopping(self) -> None:
        self.send("STOPPING=1", "STATUS=finishing open connections")

    def alive(self) -> None:
        self.send("WATCHDOG=1")
