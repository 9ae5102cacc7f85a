"""Every setting of the server: its default, its bounds and the reason for both, in one place.

A configuration comes from a TOML file (`load`), from command-line flags, or from both, the flags winning. Either way it
ends as the frozen dataclasses below. Nothing in here opens a socket or looks at a policy; `ConfigError` says in one
line what is wrong, where, and what to do.
"""

import dataclasses
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DEFAULT_LISTEN = "[::]:843"  # where Flash Player asks first; [::] is dual-stack
DEFAULT_SILVERLIGHT_LISTEN = "[::]:943"  # the only port Silverlight asks
MAX_LISTENERS = 1024  # the fast path has room for so many in one process
DEFAULT_ADMIN = "127.0.0.1:9843"  # loopback: the endpoint has no authentication


FLASH, SILVERLIGHT = DIALECTS = ("flash", "silverlight")


class ConfigError(Exception):
    """The operator's mistake: one line that says what is wrong, where, and what to do. The command exits with 2."""

    def __str__(self) -> str:
        # One line, whatever stands in the names that it quotes.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in super().__str__())


class Address(NamedTuple):
    """An IP address and port to bind; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def covers(self, other: "Address") -> bool:
        """Binding this host takes the other's too."""
        return self.host == "::" or (self.host == "0.0.0.0" and ":" not in other.host)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """`HOST:PORT` or `[IPV6]:PORT`. Names are refused: which of its addresses a name means would be a guess."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
        except ValueError:
            ip = None
        mapped = getattr(ip, "ipv4_mapped", None)
        if mapped:
            raise ConfigError(f"{text!r} is an IPv4 address in IPv6 clothes: write {mapped}:{port}")
        if not colon or ip is None or bracketed != (ip.version == 6):
            raise ConfigError(f"{text!r} is not an address to bind: write IP:PORT, such as 127.0.0.1:8430 or [::]:843")
        if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
            raise ConfigError(f"{text!r}: {port!r} is not a port: write a number from 0 to 65535")
        return cls(str(ip), int(port))


ADMIN_ADDRESS = Address.parse(DEFAULT_ADMIN)


def setting(default: Any, why: str, low: float | None = None, high: float | None = None) -> Any:
    """A field with its default, its reason and, for numbers, its bounds."""
    return field(default=default, metadata={"why": why, "low": low, "high": high})


@dataclass(frozen=True)
class Limits:
    """What one worker does and holds. Times in seconds."""

    request_timeout: float = setting(
        3.0, "Flash Player gives up after 3 s; for the whole request, whatever arrives meanwhile", 0.05, 3600
    )
    terminator_grace: float = setting(
        0.15, "wait for the NUL after the 22 bytes: a round trip's worth, and no wait anyone notices", 0.01, 60
    )
    linger_timeout: float = setting(
        1.0, "after a reply, discard what a client still sends, so that RST cannot destroy the reply", 0.05, 60
    )
    linger_bytes: int = setting(65536, "a client that sends more than this after its request is not a client", 0, 2**31)
    reply_timeout: float = setting(10.0, "for a reply that the kernel takes only in part: a slow reader", 0.05, 3600)
    max_conversations: int = setting(
        10_000, "greenlets of one worker, about 7 KB each: 70 MB at the worst", 0, 1_000_000
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            _in_bounds(type(self), f.name, getattr(self, f.name))


@dataclass(frozen=True)
class Server:
    """The whole server."""

    workers: int = setting(0, 'worker processes; "auto" is one for each CPU', 0, 256)
    admin: Address | None = setting(ADMIN_ADDRESS, 'metrics and health, or "off"; loopback: it asks no password')
    user: str | None = setting(None, "workers and the admin process become this user once the sockets are bound")
    backlog: int = setting(65535, "accept queue; the kernel lowers it to net.core.somaxconn", 1, 65535)
    shutdown_timeout: float = setting(5.0, "finish what is inside: request_timeout and a reply after it", 0, 3600)
    limits: Limits = field(default_factory=Limits)

    @property
    def worker_count(self) -> int:
        return self.workers or len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from: a file, a folder of fragments, or grants as `DOMAIN:PORTS`. Exactly one of them."""

    name: str
    file: Path | None = None
    grants: tuple[str, ...] = ()
    folder: Path | None = None


@dataclass(frozen=True)
class Listener:
    """One address and the policy it serves. Without a name it is called by its address once that is bound."""

    name: str | None
    address: Address
    policy: str
    dialect: str = FLASH

    @property
    def terminated(self) -> bool:
        """A NUL ends the request and the reply. Silverlight sends none and wants none."""
        return self.dialect == FLASH


@dataclass(frozen=True)
class Config:
    server: Server
    policies: tuple[PolicySource, ...]
    listeners: tuple[Listener, ...]

    def policy(self, name: str) -> PolicySource:
        return next(source for source in self.policies if source.name == name)


# -------------------------------------------------------------------------------------------------- TOML to Config


class _Table:
    """A TOML table that knows its name and complains about what nobody asked for."""

    def __init__(self, where: str, values: object) -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: must be a table")
        self.where = where
        self.values: dict[str, object] = dict(values)

    def take(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        value = self.values.pop(key, None)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ConfigError(f"{self.where}: {key} = {value!r}: write {expected}")
        return value

    def require(self, key: str, kind: type | tuple[type, ...], expected: str) -> Any:
        value = self.take(key, kind, expected)
        if value is None:
            raise ConfigError(f"{self.where}: {key} is missing: write {expected}")
        return value

    def finish(self, known: str) -> None:
        for key in self.values:
            raise ConfigError(f"{self.where}: unknown key {key!r}: one of {known}")


def parse_workers(text: str | int) -> int:
    """`auto` or a positive number, as `Server.workers`."""
    if text == "auto":
        return 0
    high = int(_bounds(Server, "workers")[1])
    if not re.fullmatch(r"[0-9]{1,4}", str(text)) or not 1 <= int(text) <= high:
        raise ConfigError(f'workers = {text!r}: write "auto" or a number from 1 to {high}')
    return int(text)


def parse_dialect(text: str) -> str:
    if text not in DIALECTS:
        raise ConfigError(f'dialect = {text!r}: write "{FLASH}" or "{SILVERLIGHT}"')
    return text


def parse_admin(text: str) -> Address | None:
    return None if text == "off" else Address.parse(text)


def _bounds(owner: type, name: str) -> tuple[float, float]:
    metadata = next(f for f in dataclasses.fields(owner) if f.name == name).metadata
    return metadata["low"], metadata["high"]


def _in_bounds(owner: type, name: str, value: float, where: str = "") -> float:
    low, high = _bounds(owner, name)
    if not low <= value <= high:
        whole = "whole " if isinstance(value, int) else ""
        raise ConfigError(f"{where}{name} = {value!r}: write a {whole}number from {low:g} to {high:g}")
    return value


def _numbers(table: _Table, owner: type) -> dict[str, Any]:
    """The bounded numbers of `owner` that the table sets."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(owner):
        if f.name == "workers" or f.metadata.get("low") is None:
            continue
        low, high = _bounds(owner, f.name)
        whole = isinstance(f.default, int)
        expected = f"a {'whole ' if whole else ''}number from {low:g} to {high:g}"
        value = table.take(f.name, int if whole else (int, float), expected)
        if value is not None:
            found[f.name] = _in_bounds(owner, f.name, value if whole else float(value), f"{table.where}: ")
    return found


def _server(table: _Table) -> Server:
    values = _numbers(table, Server)
    limits = Limits(**_numbers(table, Limits))
    workers = table.take("workers", (int, str), 'a number or "auto"')
    if workers is not None:
        values["workers"] = parse_workers(workers)
    admin = table.take("admin", str, '"IP:PORT" or "off"')
    if admin is not None:
        values["admin"] = parse_admin(admin)
    user = table.take("user", str, "a user's name")
    if user is not None:
        values["user"] = user
    known = [f.name for owner in (Server, Limits) for f in dataclasses.fields(owner) if f.name != "limits"]
    table.finish(", ".join(known))
    return Server(limits=limits, **values)


def _shown(name: str) -> str:
    """A key as TOML writes it: bare or quoted, in one line."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else repr(name)


def _policy(name: str, table: _Table, folder: Path) -> PolicySource:
    paths = {}
    for key in ("file", "folder"):
        path = table.take(key, str, f"a {key}'s name")
        if path is not None and "\0" in path:
            raise ConfigError(f"{table.where}: {key} = {path!r}: write a {key}'s name, which holds no NUL")
        if path is not None:
            paths[key] = folder / path
    grants = table.take("grants", list, '[{domain = "*.example.com", ports = "1935,8000-8100"}]')
    table.finish("file, folder, grants")
    if len(paths) + (grants is not None) != 1:
        raise ConfigError(f"{table.where}: set file, folder or grants, one of the three")
    if grants is None:
        return PolicySource(name, **paths)
    texts = []
    for number, entry in enumerate(grants, 1):
        grant = _Table(f"{table.where}, grant {number}", entry)
        domain = grant.require("domain", str, 'a domain, such as "*.example.com"')
        ports = grant.require("ports", (str, int), 'ports, such as "1935,8000-8100"')
        grant.finish("domain, ports")
        texts.append(f"{domain}:{ports}")
    return PolicySource(name, grants=tuple(texts))


def _listener(table: _Table, policies: Mapping[str, PolicySource]) -> Listener:
    address = Address.parse(table.require("address", str, '"IP:PORT"'))
    name = table.take("name", str, "a name")
    only = next(iter(policies)) if len(policies) == 1 else None
    policy = table.take("policy", str, "the name of a policy")
    if policy is None and only is None:
        raise ConfigError(f"{table.where}: policy is missing: name one of {', '.join(policies) or '(none is defined)'}")
    policy = only if policy is None else policy
    dialect = table.take("dialect", str, '"flash" or "silverlight"')
    table.finish("name, address, policy, dialect")
    if policy is None or policy not in policies:
        known = ", ".join(policies) or "(none is defined)"
        raise ConfigError(f"{table.where}: policy = {policy!r}: name one of {known}")
    return Listener(name, address, policy, FLASH if dialect is None else parse_dialect(dialect))


def _parse(data: bytes, folder: Path) -> Config:
    """Raises ConfigError; ValueError or RecursionError for what is not TOML."""
    root = _Table("top level", tomllib.loads(data.decode()))
    server = _server(_Table("[server]", root.take("server", dict, "[server]") or {}))
    tables = root.take("policies", dict, "[policies.NAME]") or {}
    policies = {
        name: _policy(name, _Table(f"[policies.{_shown(name)}]", values), folder) for name, values in tables.items()
    }
    rows = root.take("listeners", list, "[[listeners]]") or []
    listeners = tuple(_listener(_Table(f"[[listeners]] {n}", row), policies) for n, row in enumerate(rows, 1))
    root.finish("server, policies, listeners")
    return Config(server, tuple(policies.values()), listeners)


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError with the file's name in front."""
    try:
        return _parse(path.read_bytes(), path.parent)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError and UnicodeDecodeError are ValueErrors; tomllib lets int() raise a plain one for 5,000 digits.
        raise ConfigError(f"{path}: not TOML: {error}") from None


def check(config: Config) -> Config:
    """What only the whole can show. Returns it, or raises ConfigError."""
    if not config.listeners:
        raise ConfigError("no listener: add --listen IP:PORT or [[listeners]]")
    addresses = [listener.address for listener in config.listeners if listener.address.port]
    names = [listener.name for listener in config.listeners if listener.name is not None]
    _distinct("named", names)
    _distinct("on", addresses)
    if config.server.admin in addresses:
        raise ConfigError(f"a listener and the admin endpoint are on {config.server.admin}: give each its own")
    for wide in addresses:
        for other in addresses:
            if wide.port == other.port and wide != other and wide.covers(other):
                raise ConfigError(f"two listeners are on port {wide.port}: {wide} serves {other} too: leave one out")
    if len(config.listeners) > MAX_LISTENERS:
        raise ConfigError(f"{len(config.listeners)} listeners: {MAX_LISTENERS} at most in one server")
    return config


def _distinct(what: str, values: Sequence[object]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"two listeners are {what} {value}: give each its own")
