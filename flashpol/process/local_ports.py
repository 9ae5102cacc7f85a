"""What this host offers its outgoing connections: local ports, and addresses to connect from."""

import errno
import socket
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flashpol.config import Config, ConfigError, Listener

SYSCTLS = Path("/proc/sys/net/ipv4")
FIRST, LAST = 32768, 60999  # Linux's default
_IP_TRANSPARENT = 19  # ip(7)


@dataclass(frozen=True)
class LocalPorts:
    """count: ports that connections from one address to one destination can have. odd: the odd ones of them; the kernel
    prefers even ones."""

    count: int = LAST - FIRST + 1
    odd: "array[int]" = field(default_factory=lambda: array("H", range(FIRST + 1, LAST + 1, 2)), repr=False)

    @classmethod
    def of_host(cls, sysctls: Path = SYSCTLS) -> "LocalPorts":
        """As net.ipv4.ip_local_port_range and ip_local_reserved_ports say; the default without /proc."""
        with suppress(OSError, ValueError):
            first, last = map(int, (sysctls / "ip_local_port_range").read_text().split())
            reserved = set(_numbers((sysctls / "ip_local_reserved_ports").read_text().strip()))
            ports = [port for port in range(first, last + 1) if port not in reserved]
            return cls(len(ports), array("H", (port for port in ports if port % 2)))
        return cls()


def _numbers(text: str) -> Iterator[int]:
    """`8080,9000-9010` as numbers."""
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _require_transparency(listener: Listener) -> None:
    with socket.socket(socket.AF_INET) as sock:
        try:
            sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        except PermissionError:
            raise ConfigError(
                'upstream_source = "client" takes the capability CAP_NET_RAW, which flashpol was not started with: '
                "start it as root with user set, or with AmbientCapabilities=CAP_NET_RAW in its systemd unit, as in "
                "deploy/systemd/client-address.conf",
                listener.location and listener.location.child("upstream_source"),
            ) from None


def require_sources(config: Config) -> None:
    """Raises ConfigError if a listener's `upstream_source` is not an address of this host, or is "client" and this
    process has no right to that."""
    for listener in config.listeners:
        if listener.transparent:
            _require_transparency(listener)
        for source in listener.source_addresses:
            family = socket.AF_INET if source.version == 4 else socket.AF_INET6
            try:
                with socket.socket(family) as sock:
                    sock.bind((str(source), 0))
            except OSError as error:
                foreign = error.errno == errno.EADDRNOTAVAIL
                cause = "not an address of this host (`ip address` lists them)" if foreign else error.strerror
                raise ConfigError(f"upstream_source {source}: {cause}", listener.location) from None
