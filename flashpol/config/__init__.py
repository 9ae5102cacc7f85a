"""The settings of the server, and how they are read.

A configuration comes from a TOML file (`load`), from command-line flags, or from both; flags override the file. The
result is frozen dataclasses. Nothing here opens a socket or reads a policy. `ConfigError` is one line: what is wrong,
where, and what to do.

    settings.py       the dataclasses with their defaults, except those of limits.py: timeouts, numbers of connections
    checks.py         checks that need more than one setting
    declare.py        what a setting consists of     setting_types.py   how a value is written
    toml_loader.py    a file -> Config               render.py          a Config -> TOML, and the file of defaults
    locations.py      where a key was written        toml_positions.py  line and column of each key of a file
    renamed.py        keys of earlier versions       address.py         Address, SystemdSocket, UpstreamAddress
    errors.py         ConfigError                    websocket.py       WebSocketPath
    upstreams.py      ProtocolUpstreams
"""

from flashpol.config.address import Address, Endpoint, SystemdSocket, UpstreamAddress, parse_endpoint
from flashpol.config.checks import check
from flashpol.config.declare import describe, settings_of, type_of
from flashpol.config.errors import ConfigError, one_line
from flashpol.config.limits import ConnectionLimits, ConnectionTimeouts
from flashpol.config.render import as_toml, defaults
from flashpol.config.setting_types import Network
from flashpol.config.settings import (
    DEFAULT_ADMIN,
    DEFAULT_LISTEN,
    DEFAULT_SILVERLIGHT_LISTEN,
    DIALECTS,
    FLASH,
    JSON,
    LEAST_CONNECTIONS,
    LOG_FORMATS,
    MAX_LISTENERS,
    REFUSE,
    RELAY,
    SILVERLIGHT,
    TEXT,
    TLS_PROFILES,
    CertificateSource,
    Config,
    Listener,
    PolicySource,
    Server,
    log_file_error,
    parse_dialect,
)
from flashpol.config.toml_loader import did_you_mean, load
from flashpol.config.upstreams import RTMPT, ProtocolUpstreams
from flashpol.config.websocket import ANY_ORIGIN, BY_POLICY, EVERY_PATH, EVERY_PATH_TO_UPSTREAM, WebSocketPath

__all__ = [
    "ANY_ORIGIN",
    "BY_POLICY",
    "DEFAULT_ADMIN",
    "DEFAULT_LISTEN",
    "DEFAULT_SILVERLIGHT_LISTEN",
    "DIALECTS",
    "EVERY_PATH",
    "EVERY_PATH_TO_UPSTREAM",
    "FLASH",
    "JSON",
    "LEAST_CONNECTIONS",
    "LOG_FORMATS",
    "MAX_LISTENERS",
    "REFUSE",
    "RELAY",
    "RTMPT",
    "SILVERLIGHT",
    "TEXT",
    "TLS_PROFILES",
    "Address",
    "CertificateSource",
    "Config",
    "ConfigError",
    "ConnectionLimits",
    "ConnectionTimeouts",
    "Endpoint",
    "Listener",
    "Network",
    "PolicySource",
    "ProtocolUpstreams",
    "Server",
    "SystemdSocket",
    "UpstreamAddress",
    "WebSocketPath",
    "as_toml",
    "check",
    "defaults",
    "describe",
    "did_you_mean",
    "load",
    "log_file_error",
    "one_line",
    "parse_dialect",
    "parse_endpoint",
    "settings_of",
    "type_of",
]  # fmt: skip
