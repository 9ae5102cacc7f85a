"""Reads a TOML file into a Config. A mistake is a ConfigError: FILE:LINE:COLUMN, what is wrong, what to write."""

import dataclasses
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flashpol.config.declare import settings_of
from flashpol.config.errors import ConfigError
from flashpol.config.limits import ConnectionLimits, ConnectionTimeouts
from flashpol.config.locations import Source, SourceLocation
from flashpol.config.renamed import RENAMED
from flashpol.config.setting_types import GRANTS, SettingType, as_key, text
from flashpol.config.settings import (
    ABOUT_HTTP,
    ENCRYPTING,
    HTTP,
    RELAYING,
    CertificateSource,
    Config,
    Listener,
    PolicySource,
    Server,
)
from flashpol.config.upstreams import ProtocolUpstreams
from flashpol.config.websocket import WebSocketPath

# 1,024 listeners with a policy each take 100 kB; the rest is for grants.
MAX_CONFIG_BYTES = 1 << 20
# The keys of a grant.
GRANT = {
    "domain": text('a domain, such as "*.example.com"'),
    "ports": SettingType('ports, such as "1935,8000-8100"', (str, int), str),
}
# The keys of the top level.
TOP = {
    "server": SettingType("[server]", (dict,), dict),
    "policies": SettingType("[policies.NAME]", (dict,), dict),
    "certificates": SettingType("[certificates.NAME]", (dict,), dict),
    "listeners": SettingType("[[listeners]]", (list,), list),
}
# The keys of each table: an error names the right table for a key in the wrong one.
KEYS: dict[str, Collection[str]] = {
    "top level": TOP,
    "[server]": (*settings_of(Server), *settings_of(ConnectionTimeouts), *settings_of(ConnectionLimits)),
    "[policies.NAME]": settings_of(PolicySource),
    "[certificates.NAME]": settings_of(CertificateSource),
    "[[listeners]]": (*settings_of(Listener), *settings_of(ConnectionTimeouts)),
    "[[listeners.websocket]]": settings_of(WebSocketPath),
    "[listeners.upstreams]": settings_of(ProtocolUpstreams),
    "grants": GRANT,
}
# What other servers call it, by the table in which it is tried -> what to write instead.
LISTENER_ADDRESS = 'write [[listeners]] and in it address = "[::]:843"'
LISTENER_TLS = 'write tls = ["NAME"], and [certificates.NAME] with chain and key'
WEBSOCKET_PATH = 'write path = "/chess"'
WEBSOCKET_UPSTREAM = 'write upstream = "127.0.0.1:7001"'
WEBSOCKET_ORIGINS = 'write origins = ["https://games.example.com"]'
EVERYTHING_ELSE = "write upstream in [[listeners]]: it is for everything that has no key here"
INSIDE_TLS = "write rtmp, and tls in [[listeners]]: what comes inside TLS goes by its own protocol"
PROXIES = 'write forwarded_networks = ["10.0.0.0/8"]'
OTHER_WORDS = {
    ("[server]", "listen"): LISTENER_ADDRESS,
    ("[server]", "bind"): LISTENER_ADDRESS,
    ("[server]", "port"): LISTENER_ADDRESS,
    ("[server]", "node_id"): 'write host = "A"',
    ("[[listeners]]", "host"): 'write address = "[::]:843"; the host of tunnel ids is in [server], for all listeners',
    ("[[listeners]]", "listen"): 'write address = "[::]:843"',
    ("[[listeners]]", "port"): 'write address = "[::]:843"',
    ("[[listeners]]", "certificate"): LISTENER_TLS,
    ("[[listeners]]", "certificates"): LISTENER_TLS,
    ("[[listeners]]", "ssl"): LISTENER_TLS,
    ("[[listeners]]", "ws"): "write websocket = true",
    ("[[listeners]]", "wss"): "write websocket = true, and tls for wss",
    ("[[listeners]]", "rtmpts"): "write rtmpt = true, and tls for RTMPTS",
    ("[[listeners]]", "tunnel"): "write rtmpt = true",
    ("[[listeners]]", "x_forwarded_for"): PROXIES,
    ("[[listeners]]", "real_ip"): PROXIES,
    ("[[listeners]]", "trusted_proxies"): PROXIES,
    **{("[[listeners.websocket]]", word): WEBSOCKET_PATH for word in ("location", "url", "uri", "route", "prefix")},
    **{
        ("[[listeners.websocket]]", word): WEBSOCKET_UPSTREAM
        for word in ("backend", "target", "server", "proxy_pass", "address", "to")
    },
    **{("[[listeners.websocket]]", word): WEBSOCKET_ORIGINS for word in ("origin", "allow_origins", "allowed_origins")},
    **{("[[listeners.websocket]]", word): "write compression = true" for word in ("deflate", "permessage_deflate")},
    **{
        ("[listeners.upstreams]", word): EVERYTHING_ELSE
        for word in ("other", "silent", "default", "*", "tcp", "xmlsocket")
    },
    **{("[listeners.upstreams]", word): INSIDE_TLS for word in ("rtmps", "rtmpts")},
    ("[listeners.upstreams]", "rtmpt"): "write rtmp, and rtmpt = true in [[listeners]]: what is inside is RTMP",
    ("[listeners.upstreams]", "https"): "write http, and tls in [[listeners]]; or tls, which relays it as it comes",
    **{
        ("[listeners.upstreams]", word): "write upstream in [[listeners.websocket]], or in [[listeners]]"
        for word in ("websocket", "ws", "wss")
    },
    ("[policies.NAME]", "path"): 'write file = "policy.xml"',
    ("grants", "port"): 'write ports = "1935,8000-8100"',
    ("[certificates.NAME]", "cert"): 'write chain = "fullchain.pem"',
    ("[certificates.NAME]", "certificate"): 'write chain = "fullchain.pem"',
    ("[certificates.NAME]", "private_key"): 'write key = "privkey.pem"',
    ("[policies.NAME]", "allow"): f"write grants = {GRANTS.expected}",
}
# How a message of tomllib begins -> what to do about it.
ADVICE = {
    "Invalid value": 'text goes in quotes, as in key = "text"',
    "Expected newline": 'one key = value on each line, text in quotes, as in key = "text"',
    "Expected '='": "write key = value",
    "Invalid statement": "write [table] or key = value",
    "Cannot overwrite": "it is defined twice: remove one",
    "Cannot declare": "a [table] is written once; [[listeners]], in double brackets, once for each listener",
    "Unterminated string": "text ends with the quote that it began with, on the same line",
}


class _Table:
    """A TOML table whose keys are taken one by one; `finish` refuses the keys that are left.

    kind: a key of KEYS. name: as errors call the table, such as `[[listeners]] 2`.
    """

    def __init__(self, kind: str, name: str, location: SourceLocation, values: object) -> None:
        self.kind, self.name, self.location = kind, name, location
        if not isinstance(values, dict):
            raise self.error(f"must be a table with {', '.join(KEYS[kind])}")
        self.values: dict[str, Any] = dict(values)

    def error(self, message: str, *key: str) -> ConfigError:
        return ConfigError(f"{self.name}: {message}", self.location.child(*key))

    def take(self, key: str, kind: SettingType) -> Any:
        """The value of a key, or None if it is absent."""
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
        """The settings of `owner` that this table has."""
        return {
            name: self.take(name, setting.metadata["type"])
            for name, setting in settings_of(owner).items()
            if name in self.values
        }

    def finish(self) -> None:
        known = KEYS[self.kind]
        for key in self.values:
            if key in RENAMED:
                raise self.error(RENAMED[key], key)
            # A key that is right elsewhere is misplaced rather than misspelt, however near another key may be.
            advice = OTHER_WORDS.get((self.kind, key)) or _right_table(key) or did_you_mean(key, known)
            raise self.error(f"unknown key {key!r}: {advice or 'write one of ' + ', '.join(known)}", key)


def _right_table(key: str) -> str:
    """Where a known key belongs, or an empty text."""
    if key in TOP:
        return f"write {TOP[key].expected}, a table of its own"
    return next((f"it belongs in {kind}" for kind, keys in KEYS.items() if key in keys), "")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """A question with the nearest known word, or an empty text."""
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
        locations={name: table.location.child(name) for name in own},
        **own,
    )


def _certificate(name: str, table: _Table, folder: Path) -> CertificateSource:
    values = table.take_settings(CertificateSource)
    table.finish()
    if "chain" not in values:
        raise table.error('chain is missing: write a file name, as in chain = "fullchain.pem"')
    return CertificateSource(name, location=table.location, **{key: folder / value for key, value in values.items()})


def _policy(name: str, table: _Table, folder: Path) -> PolicySource:
    values = table.take_settings(PolicySource)
    table.finish()
    if len(values) != 1:
        raise table.error("set exactly one of file, folder, grants and deny_all")
    [(key, value)] = values.items()
    if key == "grants":
        value = tuple(_grant(table, number, entry) for number, entry in enumerate(value))
    elif key != "deny_all":
        value = folder / value
    return PolicySource(name, location=table.location.child(key), **{key: value})


def _grant(policy: _Table, number: int, entry: object) -> str:
    name = f"{policy.name}, grant {number + 1}"
    table = _Table("grants", name, policy.location.child("grants", number), entry)
    domain, ports = (table.require(key, kind) for key, kind in GRANT.items())
    table.finish()
    return f"{domain}:{ports}"


def _listener(
    table: _Table,
    policies: Mapping[str, PolicySource],
    certificates: Mapping[str, CertificateSource],
    timeouts: ConnectionTimeouts,
    folder: Path,
) -> Listener:
    values = table.take_settings(Listener)
    own = table.take_settings(ConnectionTimeouts)
    table.finish()
    if isinstance(values.get("websocket"), list):
        values["websocket"] = tuple(_websocket_path(table, *row) for row in enumerate(values["websocket"]))
    if "upstreams" in values:
        values["upstreams"] = _upstreams(table, values["upstreams"])
    values |= {name: folder / values[name] for name in HTTP if isinstance(values.get(name), Path)}
    if "address" not in values:
        raise table.error(f"address is missing: write {settings_of(Listener)['address'].metadata['type'].expected}")
    by_protocol = values.get("upstreams", ProtocolUpstreams()).named
    relays = "upstream" in values or by_protocol or any(path.upstream for path in values.get("websocket", ()))
    unused = next((name for name in RELAYING if name in values and not relays), None)
    if unused:
        raise table.error(f"{unused} needs a shared port: set upstream too, or remove it", unused)
    unused = next((name for name in ENCRYPTING if name in values and "tls" not in values), None)
    if unused:
        raise table.error(f"{unused} needs a certificate: set tls too, or remove it", unused)
    unused = next((name for name in ABOUT_HTTP if name in values and not any(values.get(each) for each in HTTP)), None)
    if unused:
        needed = f"{', '.join(HTTP[:-1])} or {HTTP[-1]}"
        raise table.error(f"{unused} is about HTTP requests: set {needed} too, or remove it", unused)
    known = ", ".join(map(as_key, policies)) or "(none is defined)"
    if "policy" not in values and len(policies) != 1:
        raise table.error(f"policy is missing: write one of {known}")
    values = {"name": None, "policy": next(iter(policies), None), **values}
    if values["policy"] not in policies:
        advice = did_you_mean(values["policy"], policies) or f"no policy has this name; write one of {known}"
        raise table.error(f"policy = {values['policy']!r}: {advice}", "policy")
    for name in values.get("tls", ()):
        if name not in certificates:
            raise table.error(f"tls names {name!r}: {_certificate_advice(name, certificates)}", "tls")
    # Timeouts that the listener does not set are the server's.
    values["timeouts"] = dataclasses.replace(timeouts, **own) if own else None
    return Listener(**values, location=table.location)


def _websocket_path(listener: _Table, number: int, entry: object) -> WebSocketPath:
    kind = "[[listeners.websocket]]"
    location = listener.location.child("websocket", number)
    table = _Table(kind, f"{listener.name}, websocket {number + 1}", location, entry)
    values = table.take_settings(WebSocketPath)
    table.finish()
    if "path" not in values:
        raise table.error(f"path is missing: write {settings_of(WebSocketPath)['path'].metadata['type'].expected}")
    return WebSocketPath(**values, location=location)


def _upstreams(listener: _Table, values: object) -> ProtocolUpstreams:
    location = listener.location.child("upstreams")
    table = _Table("[listeners.upstreams]", f"{listener.name}, upstreams", location, values)
    upstreams = ProtocolUpstreams(**table.take_settings(ProtocolUpstreams), location=location)
    table.finish()
    return upstreams


def _certificate_advice(name: str, certificates: Collection[str]) -> str:
    if not certificates:
        return f"no certificate is defined; write [certificates.{as_key(name)}] with chain and key"
    known = ", ".join(map(as_key, certificates))
    return did_you_mean(name, certificates) or f"no certificate has this name; write one of {known}"


def _parse(source: Source, folder: Path) -> Config:
    top = SourceLocation(source)
    root = _Table("top level", "top level", top, tomllib.loads(source.text))
    found = {key: root.take(key, kind) for key, kind in TOP.items()}
    root.finish()
    server = _server(_Table("[server]", "[server]", top.child("server"), found["server"] or {}))
    certificates = {
        name: _certificate(
            name,
            _Table("[certificates.NAME]", f"[certificates.{as_key(name)}]", top.child("certificates", name), values),
            folder,
        )
        for name, values in (found["certificates"] or {}).items()
    }
    policies = {
        name: _policy(
            name, _Table("[policies.NAME]", f"[policies.{as_key(name)}]", top.child("policies", name), values), folder
        )
        for name, values in (found["policies"] or {}).items()
    }
    listeners = tuple(
        _listener(
            _Table("[[listeners]]", f"[[listeners]] {number + 1}", top.child("listeners", number), row),
            policies,
            certificates,
            server.timeouts,
            folder,
        )
        for number, row in enumerate(found["listeners"] or [])
    )
    return Config(server, tuple(policies.values()), listeners, tuple(certificates.values()))


def load(path: Path) -> Config:
    """Read a configuration file. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{str(path)!r}: not a file name: {error}") from None
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES:,} bytes: is this a configuration file?")
    try:
        return _parse(Source(str(path), data.decode("utf-8-sig")), path.parent)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise ConfigError(f"{path}:{line}: not TOML: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is a ValueError; tomllib lets int() raise a plain one for 5,000 digits.
        lines = data.count(b"\n") + 1
        raise ConfigError(f"{path}{_not_toml(str(error), lines)}") from None


def _not_toml(message: str, lines: int) -> str:
    """The message of tomllib with its position in front, as in other errors, and advice after it."""
    what, _, position = message.partition(" (at ")
    numbers = re.findall(r"\d+", position) or [str(lines)] * bool(position)  # "at end of document"
    advice = next((f": {advice}" for start, advice in ADVICE.items() if message.startswith(start)), "")
    return f"{''.join(f':{number}' for number in numbers)}: not TOML: {what}{advice}"
