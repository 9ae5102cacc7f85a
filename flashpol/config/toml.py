"""A TOML file -> Config. Every mistake in it is a ConfigError with the file's name in front."""

import dataclasses
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flashpol.config.address import Endpoint, parse_endpoint
from flashpol.config.errors import ConfigError
from flashpol.config.kinds import Kind, text
from flashpol.config.settings import DIALECT, FLASH, Config, Limits, Listener, PolicySource, Server

ENDPOINT = text('"IP:PORT" or "systemd:NAME"', parse_endpoint)
NAME = text("a name")


class _Table:
    """A TOML table that knows its name and complains about what nobody asked for."""

    def __init__(self, where: str, values: object) -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"{where}: must be a table")
        self.where = where
        self.values: dict[str, object] = dict(values)

    def take(self, key: str, kind: Kind) -> Any:
        """The value of a key, or None if it is not there."""
        if key not in self.values:
            return None
        try:
            return kind.read(key, self.values.pop(key))
        except ConfigError as error:
            raise ConfigError(f"{self.where}: {error}") from None

    def require(self, key: str, kind: Kind) -> Any:
        value = self.take(key, kind)
        if value is None:
            raise ConfigError(f"{self.where}: {key} is missing: write {kind.expected}")
        return value

    def take_settings(self, owner: type) -> dict[str, Any]:
        """The settings of `owner` that are here."""
        return {name: self.take(name, kind) for name, kind in settings(owner).items() if name in self.values}

    def finish(self, known: Iterable[str]) -> None:
        for key in self.values:
            raise ConfigError(f"{self.where}: unknown key {key!r}: one of {', '.join(known)}")


def settings(owner: type) -> dict[str, Kind]:
    """The settings of a class, in its order, and how each is written."""
    return {f.name: f.metadata["kind"] for f in dataclasses.fields(owner) if "kind" in f.metadata}


def _server(table: _Table) -> Server:
    server = Server(limits=Limits(**table.take_settings(Limits)), **table.take_settings(Server))
    table.finish([*settings(Server), *settings(Limits)])
    return server


def _shown(name: str) -> str:
    """A key as TOML writes it: bare or quoted, in one line."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else repr(name)


def _path(what: str) -> Kind:
    def parse(path: str) -> Path:
        if "\0" in path:
            raise ValueError
        return Path(path)

    return text(f"a {what}'s name, which holds no NUL", parse)


PATHS = {"file": _path("file"), "folder": _path("folder")}
GRANTS = Kind('[{domain = "*.example.com", ports = "1935,8000-8100"}]', (list,), list)
DOMAIN = text('a domain, such as "*.example.com"')
PORTS = Kind('ports, such as "1935,8000-8100"', (str, int), str)


def _policy(name: str, table: _Table, folder: Path) -> PolicySource:
    paths = {key: folder / table.take(key, kind) for key, kind in PATHS.items() if key in table.values}
    grants = table.take("grants", GRANTS)
    table.finish([*PATHS, "grants"])
    if len(paths) + (grants is not None) != 1:
        raise ConfigError(f"{table.where}: set file, folder or grants, one of the three")
    if grants is None:
        return PolicySource(name, **paths)
    texts = []
    for number, entry in enumerate(grants, 1):
        grant = _Table(f"{table.where}, grant {number}", entry)
        texts.append(f"{grant.require('domain', DOMAIN)}:{grant.require('ports', PORTS)}")
        grant.finish(["domain", "ports"])
    return PolicySource(name, grants=tuple(texts))


def _listener(table: _Table, policies: Mapping[str, PolicySource], limits: Limits) -> Listener:
    address: Endpoint = table.require("address", ENDPOINT)
    name = table.take("name", NAME)
    known = ", ".join(policies) or "(none is defined)"
    only = next(iter(policies)) if len(policies) == 1 else None
    policy = table.take("policy", text(f"the name of a policy: one of {known}"))
    policy = only if policy is None else policy
    if policy is None:
        raise ConfigError(f"{table.where}: policy is missing: name one of {known}")
    dialect = table.take("dialect", DIALECT)
    own = table.take_settings(Limits)
    table.finish(["name", "address", "policy", "dialect", *settings(Limits)])
    if policy not in policies:
        raise ConfigError(f"{table.where}: policy = {policy!r}: name one of {known}")
    # What it does not say of its own is the server's.
    return Listener(name, address, policy, dialect or FLASH, dataclasses.replace(limits, **own) if own else None)


TABLE = {"server": Kind("[server]", (dict,), dict), "policies": Kind("[policies.NAME]", (dict,), dict)}
ROWS = Kind("[[listeners]]", (list,), list)


def _parse(data: bytes, folder: Path) -> Config:
    """Raises ConfigError; ValueError or RecursionError for what is not TOML."""
    root = _Table("top level", tomllib.loads(data.decode()))
    server = _server(_Table("[server]", root.take("server", TABLE["server"]) or {}))
    tables = root.take("policies", TABLE["policies"]) or {}
    policies = {
        name: _policy(name, _Table(f"[policies.{_shown(name)}]", values), folder) for name, values in tables.items()
    }
    rows = root.take("listeners", ROWS) or []
    listeners = tuple(
        _listener(_Table(f"[[listeners]] {n}", row), policies, server.limits) for n, row in enumerate(rows, 1)
    )
    root.finish([*TABLE, "listeners"])
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
