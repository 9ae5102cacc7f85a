"""What is done to the run's own network namespace (`bench.isolation`).

A firewall makes the attackers vanish, an address stands for another host, and local ports become few.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults import FaultsError

# An address that is no loopback one to the kernel, which uses a local port in TIME-WAIT again only for those.
ELSEWHERE = "198.51.100.1"
PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
SEND_BUFFERS, SMALL_SEND_BUFFER = Path("/proc/sys/net/ipv4/tcp_wmem"), 1 << 16
SIOCSIFADDR = 0x8916


def add_elsewhere() -> None:
    """Give this host the address `ELSEWHERE`. To do so again changes nothing."""
    request = struct.pack("16sH2x4s8x", b"lo:1", socket.AF_INET, socket.inet_aton(ELSEWHERE))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFADDR, request)


def limit_local_ports(count: int) -> None:
    """Let connections that begin from now on have so many local ports, for each two addresses and each remote port."""
    first = int(PORT_RANGE.read_text().split()[0])
    PORT_RANGE.write_text(f"{first} {first + count - 1}")


@contextmanager
def usual_local_ports() -> Iterator[None]:
    """The local ports are the usual ones after the context, whatever happens in it."""
    usual = PORT_RANGE.read_text()
    try:
        yield
    finally:
        PORT_RANGE.write_text(usual)


@contextmanager
def small_send_buffers() -> Iterator[None]:
    """In the context, no connection has a send buffer of more than 64 KB.

    All namespaces share the kernel's memory for TCP (`net.ipv4.tcp_mem`), and thousands of connections with the usual
    buffers of 4 MB use it up: then the kernel resets connections of the whole machine.
    """
    usual = SEND_BUFFERS.read_text()
    first, default, _ = usual.split()
    SEND_BUFFERS.write_text(f"{first} {default} {SMALL_SEND_BUFFER}")
    try:
        yield
    finally:
        SEND_BUFFERS.write_text(usual)


class Firewall:
    """Drops packets to and from 127.16.0.0/12, the attackers. For the run's own network namespace only."""

    RULES = (
        "table inet faults {\n chain vanish {\n  type filter hook output priority 0;\n"
        "  ip daddr 127.16.0.0/12 drop\n  ip saddr 127.16.0.0/12 drop\n }\n}\n"
    )

    @staticmethod
    def available() -> bool:
        return _program() is not None

    def __enter__(self) -> None:
        self._nft("-f", "-", rules=self.RULES)

    def __exit__(self, *_: object) -> None:
        self._nft("delete", "table", "inet", "faults")

    @staticmethod
    def _nft(*arguments: str, rules: str = "") -> None:
        nft = _program()
        if nft is None:
            raise FaultsError("nft is not installed: apt-get install nftables")
        done = subprocess.run([nft, *arguments], input=rules, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode != 0:
            raise FaultsError(f"nft {' '.join(arguments)}: {done.stderr.strip()}")


def _program() -> str | None:
    return shutil.which("nft", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
