"""A TOML file -> Config. Every mistake in it is a ConfigError: FILE:LINE:COLUMN, what is wrong, what to write."""

import dataclasses
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flashpol.config.errors import ConfigError
from flashpol.config.locations import Source, SourceLocation
from flashpol.config.setting_types import SettingType, as_key, text
from flashpol.config.settings import (
    RELAYING,
    Config,
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    Server,
    settings_of,
)

# As many listeners as there can be, with a policy each, take 100 kB; the rest is for grants.
MAX_CONFIG_BYTES = 1 << 20
# What a grant is made of.
GRANT = {
    "domain": text('a domain, such as "*.example.com"'),
    "ports": SettingType('ports, such as "1935,8000-8100"', (str, int), str),
}
# What the top level is made of.
TOP = {
    "server": SettingType("[server]", (dict,), dict),
    "policies": SettingType("[policies.NAME]", (dict,), dict),
    "listeners": SettingType("[[listeners]]", (list,), list),
}
# The keys of each table, by which a key in the wrong table is told where it belongs.
KEYS: dict[str, Collection[str]] = {
    "top level": TOP,
    "[server]": (*settings_of(Server), *settings_of(ConnectionTimeouts), *settings_of(ConnectionLimits)),
    "[policies.NAME]": settings_of(PolicySource),
    "[[listeners]]": (*settings_of(Listener), *settings_of(ConnectionTimeouts)),
    "grants": GRANT,
}
# What tomllib says -> what it means to who wrote it.
ADVICE = {
    "Invalid value": 'text goes in quotes, as in key = "text"',
    "Expected newline": 'one key = value on each line, text in quotes, as in key = "text"',
    "Expected '='": "write key = value",
    "Invalid statement": "write [table] or key = value",
    "Cannot overwrite": "it is there already: leave one out",
    "Cannot declare": "a [table] stands once; [[listeners]], in double brackets, once for each listener",
    "Unterminated string": "text ends with the quote it began with, on the same line",
}


class _Table:
    """A TOML table that knows its name and place, and complains about what nobody asked for."""

    def __init__(self, kind: str, name: str, origin: SourceLocation, values: object) -> None:
        self.kind, self.name, self.origin = kind, name, origin
        if not isinstance(values, dict):
            raise self.error(f"must be a table: of {', '.join(KEYS[kind])}")
        self.values: dict[str, Any] = dict(values)

    def error(self, message: str, *key: str) -> ConfigError:
        return ConfigError(f"{self.name}: {message}", self.origin.inside(*key))

    def take(self, key: str, kind: SettingType) -> Any:
        """The value of a key, or None if it is not there."""
        if key not in self.values:
            return None
        try:
            return kind.read(key, self.values.pop(key))
        except ConfigError as error:
            raise self.error(str(error), key) from None

    def require(self, key: str, kind: SettingType) -> Any:
        value = self.take(key, kind)
        if value is None:
            raise self.error(f"{key} is missing: write {kind.expected}")
        return value

    def take_settings(self, owner: type) -> dict[str, Any]:
        """The settings of `owner` that are here."""
        return {
            name: self.take(name, setting.metadata["kind"])
            for name, setting in settings_of(owner).items()
            if name in self.values
        }

    def finish(self) -> None:
        known = KEYS[self.kind]
        for key in self.values:
            homes = [home for home, keys in KEYS.items() if key in keys]
            advice = f"it belongs in {homes[0]}" if homes else f"one of {', '.join(known)}"
            raise self.error(f"unknown key {key!r}: {did_you_mean(key, known) or advice}", key)


def did_you_mean(word: str, known: Collection[str]) -> str:
    """The nearest of what is known as a question, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(word, known, 1)
    return f"did you mean {near[0]!r}?" if near else ""


def _server(table: _Table) -> Server:
    timeouts, connection_limits = (
        ConnectionTimeouts(**table.take_settings(ConnectionTimeouts)),
        ConnectionLimits(**table.take_settings(ConnectionLimits)),
    )
    own = table.take_settings(Server)
    table.finish()
    return Server(
        timeouts=timeouts,
        connection_limits=connection_limits,
        places={name: table.origin.inside(name) for name in own},
        **own,
    )


def _policy(name: str, table: _Table, folder: Path) -> PolicySource:
    values = table.take_settings(PolicySource)
    table.finish()
    if len(values) != 1:
        raise table.error("set file, folder or grants, one of the three")
    [(key, value)] = values.items()
    if key == "grants":
        value = tuple(_grant(table, number, entry) for number, entry in enumerate(value))
    else:
        value = folder / value
    return PolicySource(name, origin=table.origin, **{key: value})


def _grant(policy: _Table, number: int, entry: object) -> str:
    name = f"{policy.name}, grant {number + 1}"
    table = _Table("grants", name, policy.origin.inside("grants", number), entry)
    domain, ports = (table.require(key, kind) for key, kind in GRANT.items())
    table.finish()
    return f"{domain}:{ports}"


def _listener(table: _Table, policies: Mapping[str, PolicySource], timeouts: ConnectionTimeouts) -> Listener:
    values = table.take_settings(Listener)
    own = table.take_settings(ConnectionTimeouts)
    table.finish()
    if "address" not in values:
        raise table.error(f"address is missing: write {settings_of(Listener)['address'].metadata['kind'].expected}")
    useless = next((name for name in RELAYING if name in values and "upstream" not in values), None)
    if useless:
        raise table.error(f"{useless} is for a shared port: set upstream too, or leave it out", useless)
    known = ", ".join(map(as_key, policies)) or "(none is defined)"
    if "policy" not in values and len(policies) != 1:
        raise table.error(f"policy is missing: name one of {known}")
    values = {"name": None, "policy": next(iter(policies), None), **values}
    if values["policy"] not in policies:
        advice = did_you_mean(values["policy"], policies) or f"name one of {known}"
        raise table.error(f"policy = {values['policy']!r}: {advice}", "policy")
    # What it does not say of its own is the server's.
    values["timeouts"] = dataclasses.replace(timeouts, **own) if own else None
    return Listener(**values, origin=table.origin)


def _parse(source: Source, folder: Path) -> Config:
    top = SourceLocation(source)
    root = _Table("top level", "top level", top, tomllib.loads(source.text))
    found = {key: root.take(key, kind) for key, kind in TOP.items()}
    root.finish()
    server = _server(_Table("[server]", "[server]", top.inside("server"), found["server"] or {}))
    policies = {
        name: _policy(
            name, _Table("[policies.NAME]", f"[policies.{as_key(name)}]", top.inside("policies", name), values), folder
        )
        for name, values in (found["policies"] or {}).items()
    }
    listeners = tuple(
        _listener(
            _Table("[[listeners]]", f"[[listeners]] {number + 1}", top.inside("listeners", number), row),
            policies,
            server.timeouts,
        )
        for number, row in enumerate(found["listeners"] or [])
    )
    return Config(server, tuple(policies.values()), listeners)


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{str(path)!r}: not a file's name: {error}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES:,} bytes: is it a configuration?")
    try:
        return _parse(Source(str(path), data.decode("utf-8-sig")), path.parent)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise ConfigError(f"{path}:{line}: not TOML: byte 0x{byte:02x} is no UTF-8: save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError; tomllib lets int() raise a plain one for 5,000 digits.
        lines = data.count(b"\n") + 1
        raise ConfigError(f"{path}{_not_toml(str(error), lines)}") from None


def _not_toml(message: str, lines: int) -> str:
    """What tomllib says, with the place in front, as everywhere, and what to do behind."""
    what, _, place = message.partition(" (at ")
    numbers = re.findall(r"\d+", place) or [str(lines)] * bool(place)  # "at end of document"
    advice = next((f": {advice}" for start, advice in ADVICE.items() if message.startswith(start)), "")
    return f"{''.join(f':{number}' for number in numbers)}: not TOML: {what}{advice}"
