"""Addresses: what a listener or the admin endpoint binds, the systemd socket it takes instead, and an upstream."""

import ipaddress
import re
from typing import NamedTuple

from flashpol.config.errors import ConfigError

SYSTEMD = "systemd:"


IP = ipaddress.IPv4Address | ipaddress.IPv6Address


def _require_interface(ip: IP, port: str, text: str) -> None:
    """Raises ConfigError unless a link-local address, and no other, names its interface (RFC 4007 section 11)."""
    interface = getattr(ip, "scope_id", None)
    if ip.version == 6 and ip.is_link_local:
        if interface is None:
            message = f"is link-local, which is an address of one interface: write [{ip}%eth0]:{port}"
            raise ConfigError(f"{text!r} {message}")
        if not re.fullmatch(r"[^\s/:%]{1,15}", interface):
            raise ConfigError(f"{text!r}: {interface!r} is not the name of an interface: write [fe80::1%eth0]:{port}")
    elif interface is not None:
        plain = str(ip).partition("%")[0]
        raise ConfigError(f"{text!r}: only a link-local address has an interface: write [{plain}]:{port}")


class Address(NamedTuple):
    """An IP address and port to bind; port 0 lets the kernel choose. A link-local host ends with its interface:
    fe80::1%eth0."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """True if other hosts cannot connect to it."""
        return ipaddress.ip_address(self.host).is_loopback

    def covers(self, other: "Address") -> bool:
        """True if binding this address binds the other one too: same port, and a wildcard host that includes it."""
        wildcard = self.host == "::" or (self.host == "0.0.0.0" and ":" not in other.host)
        return wildcard and self.port == other.port

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`IP:PORT` or `[IPV6]:PORT`. Host names are refused: a name with several addresses would be ambiguous."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
        except ValueError:
            ip = None
        mapped = getattr(ip, "ipv4_mapped", None)
        if mapped:
            raise ConfigError(f"{text!r} is an IPv4-mapped IPv6 address; write {mapped}:{port}")
        if not colon or ip is None or bracketed != (ip.version == 6):
            raise ConfigError(f"{text!r} is not an address to bind: write IP:PORT, such as 127.0.0.1:8430 or [::]:843")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ConfigError(f"{text!r}: {port!r} is not a port: write a number from 0 to 65535")
        _require_interface(ip, port, text)
        return cls(str(ip), int(port))


class SystemdSocket(NamedTuple):
    """A listening socket passed by systemd, by its name: FileDescriptorName= of systemd.socket(5)."""

    name: str

    def __str__(self) -> str:
        return f"{SYSTEMD}{self.name}"

    @property
    def port(self) -> int:
        """0: unknown until the socket is there, as for a port that the kernel chooses."""
        return 0

    @classmethod
    def parse(cls, text: str) -> "SystemdSocket":
        """`systemd:NAME`. systemd.socket(5) defines what a name may contain."""
        name = text.removeprefix(SYSTEMD)
        if name == text or not re.fullmatch(r"[ -9;-~]{1,255}", name):
            raise ConfigError(
                f"{text!r} is not the name of a systemd socket: write systemd:NAME, NAME as in FileDescriptorName= "
                "(at most 255 ASCII characters, no colon)"
            )
        return cls(name)


Endpoint = Address | SystemdSocket


def parse_endpoint(text: str) -> Endpoint:
    """`IP:PORT` or `systemd:NAME`."""
    return (SystemdSocket if text.startswith(SYSTEMD) else Address).parse(text)


UNIX = "unix:"
_MAX_PATH = 107  # sun_path of unix(7) without its NUL


class UpstreamAddress(NamedTuple):
    """An upstream: a host name or IP address and a port, or the path of a Unix socket."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"{UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_ip(self) -> bool:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    def arrives_at(self, listening: Address) -> bool:
        """True if a connection to this upstream reaches `listening`, as far as that is known without a DNS query."""
        if self.path or self.port != listening.port:
            return False
        target = Address("127.0.0.1" if self.host == "localhost" else self.host, self.port)
        is_loopback = UpstreamAddress(*target).is_ip and ipaddress.ip_address(target.host).is_loopback
        return target == listening or (is_loopback and listening.covers(target))

    @classmethod
    def parse(cls, text: str) -> "UpstreamAddress":
        """`HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`."""
        if text.startswith(UNIX):
            path = text.removeprefix(UNIX)
            if not path.startswith("/") or "\0" in path or len(path.encode()) > _MAX_PATH:
                raise ConfigError(f"{text!r}: write unix: and an absolute path of at most {_MAX_PATH} bytes")
            return cls("", 0, path)
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        found = cls(host, int(port)) if re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) <= 65535 else None
        if not colon or found is None:
            raise ConfigError(f"{text!r}: write HOST:PORT, the port from 1 to 65535, or unix:/PATH")
        if found.is_ip and bracketed == (":" in host):
            ip = ipaddress.ip_address(host)
            _require_interface(ip, port, text)
            return cls(str(ip), found.port)
        # RFC 1123 section 2.1: letters, digits, hyphens. Container networks name hosts with underscores too.
        if (
            bracketed
            or not re.fullmatch(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", host)
            or len(host) > 253
        ):
            raise ConfigError(f"{text!r}: {host!r} is neither a host name nor an IP address ([IPv6] in brackets)")
        return cls(host, found.port)
