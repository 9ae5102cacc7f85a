"""What the kernel still holds of connections that the server has closed: sockets by state, memory."""

import os
from collections.abc import Iterable
from pathlib import Path

FIN_WAIT_1 = "04"  # include/net/tcp_states.h: closed, and its last bytes are not acknowledged


def count(lines: Iterable[str], state: str, port: int) -> int:
    """The sockets of this local port in this state. lines: of /proc/net/tcp."""
    found = 0
    for line in lines:
        fields = line.split(maxsplit=4)
        found += len(fields) > 3 and fields[3] == state and int(fields[1].rpartition(":")[2], 16) == port
    return found


def unread_replies(port: int) -> int:
    """The sockets that the server has closed, and whose clients have not taken the reply."""
    return count(Path("/proc/net/tcp").read_text().splitlines()[1:], FIN_WAIT_1, port)


def tcp_memory() -> int:
    """Bytes in the kernel's TCP buffers, of the whole machine."""
    text = Path("/proc/net/sockstat").read_text()
    words = next(line.split() for line in text.splitlines() if line.startswith("TCP:"))
    return int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGE_SIZE")
