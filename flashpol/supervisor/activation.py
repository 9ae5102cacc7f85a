"""Listening sockets that systemd hands over (sd_listen_fds(3))."""

import os
import socket
from collections.abc import MutableMapping

from flashpol.config import ConfigError, SystemdSocket

FIRST = 3  # SD_LISTEN_FDS_START
UNNAMED = "unknown"  # what systemd calls those without FileDescriptorName=, as we do if it gives no names at all


def take(environ: MutableMapping[str, str] = os.environ) -> dict[SystemdSocket, list[socket.socket]]:
    """The sockets by name, of which one may have several; none if they are not for this process.

    The variables are removed: they are for one process. Raises ConfigError for what is no listening TCP socket.
    """
    pid, count, names = (environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    found: dict[SystemdSocket, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not count.isdecimal():
        return found
    called = names.split(":") if names else []
    for number in range(int(count)):
        name = called[number] if number < len(called) else UNNAMED
        os.set_inheritable(FIRST + number, False)
        try:
            sock = socket.socket(fileno=FIRST + number)
            listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            if not listening or sock.family not in (socket.AF_INET, socket.AF_INET6):
                raise OSError
        except OSError:
            what = f"{SystemdSocket(name)}: what systemd hands over is no listening TCP socket"
            raise ConfigError(f"{what}: use ListenStream=IP:PORT") from None
        sock.setblocking(False)
        found.setdefault(SystemdSocket(name), []).append(sock)
    return found
