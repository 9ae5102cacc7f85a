"""A network namespace of its own for the run, if this process has the right to create one.

In it the accept queue may be as long as 10,000 simultaneous clients need (each namespace has its own
net.core.somaxconn), other programs' packets do not disturb, and sockets in TIME_WAIT end with the run.
"""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
QUEUE = 65535


def isolate() -> str | None:
    """Move this process and its future children into a new network namespace. Returns why that failed, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return f"cannot create a network namespace: {os.strerror(ctypes.get_errno())}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    try:
        SOMAXCONN.write_text(str(QUEUE))
    except OSError as error:  # /proc/sys is read-only in many containers
        limit = SOMAXCONN.read_text().strip()
        return f"accept queues are limited to {limit}: cannot write net.core.somaxconn: {error.strerror}"
    return None
