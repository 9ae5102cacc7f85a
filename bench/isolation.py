"""A loopback of one's own: a network namespace, where there are the rights for one.

There the accept queue may be as long as 10,000 clients who come at once need (net.core.somaxconn is the namespace's
own), nobody else's packets are in the way, and what is left in TIME_WAIT ends with the run.
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
    """Move this process and what it starts into a new network namespace. Returns why that is not possible, or None."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return f"no network namespace of its own: {os.strerror(ctypes.get_errno())}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    try:
        SOMAXCONN.write_text(str(QUEUE))
    except OSError as error:  # /proc/sys is read-only in many containers
        return f"the accept queues are {SOMAXCONN.read_text().strip()} long: {error.strerror}"
    return None
