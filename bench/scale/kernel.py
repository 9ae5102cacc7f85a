"""What the kernel of this machine says: its memory for sockets, accept queues, TIME-WAIT, connection tracking."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import BenchError

TABLE = "flashpol_bench_scale"
CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_count")
# The kernel tracks connections in a network namespace in which a rule asks for their state.
RULES = f"""table inet {TABLE} {{
    chain input {{
        type filter hook input priority filter
        ct state new counter
    }}
}}
"""


def slab_bytes() -> int:
    """Memory of the kernel's objects, of all the machine: sockets, files, inodes, entries of epoll sets."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Slab:")) * 1024


def accept_queue(port: int) -> int:
    """Connections that wait in the accept queues of a port of 127.0.0.1, in this network namespace."""
    local, listening = f"0100007F:{port:04X}", "0A"
    lines = (line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:])
    return sum(int(words[4].partition(":")[2], 16) for words in lines if words[1] == local and words[3] == listening)


def time_waits() -> int:
    """Connections in TIME-WAIT, in this network namespace."""
    for line in Path("/proc/self/net/sockstat").read_text().splitlines():
        words = line.split()
        if words[0] == "TCP:":
            return int(words[words.index("tw") + 1])
    raise BenchError("/proc/net/sockstat has no line for TCP")


@contextmanager
def tracking() -> Iterator[None]:
    """Within the context the kernel tracks connections in this network namespace."""
    _nft(RULES)
    try:
        yield
    finally:
        _nft(f"delete table inet {TABLE}\n")


def tracked() -> int:
    """Entries of connection tracking, in this network namespace."""
    return int(CONNTRACK.read_text())


def tracking_missing() -> str | None:
    """Why connections cannot be tracked here, or None."""
    if not shutil.which("nft"):
        return "nft is not installed"
    return None if os.geteuid() == 0 and CONNTRACK.exists() else "it takes root, and a kernel with nf_conntrack"


def _nft(rules: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=rules, check=False, capture_output=True, text=True, timeout=10)
    if done.returncode:
        raise BenchError(f"nft failed: {done.stderr.strip()}")
