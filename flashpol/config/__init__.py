"""Every setting of the server: its default, its bounds and the reason for both, in one place.

A configuration comes from a TOML file (`load`), from command-line flags, or from both, the flags winning. Either way it
ends as frozen dataclasses. Nothing in here opens a socket or looks at a policy; `ConfigError` says in one line what is
wrong, where, and what to do.

    settings.py   the dataclasses, and what only the whole can show
    address.py    Address, Inherited, Remote         kinds.py    how a setting is written
    toml.py       a file -> Config                   render.py   back to TOML
    origin.py     where a part was written           places.py   line and column of all that is in a file
    errors.py     ConfigError
"""

from flashpol.config.address import Address, Endpoint, SystemdSocket, UpstreamAddress, parse_endpoint
from flashpol.config.errors import ConfigError, one_line
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
    SILVERLIGHT,
    TEXT,
    Config,
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    Server,
    check,
    kind_of,
    parse_dialect,
    settings_of,
)
from flashpol.config.toml_loader import load

__all__ = [
    "DEFAULT_ADMIN",
    "DEFAULT_LISTEN",
    "DEFAULT_SILVERLIGHT_LISTEN",
    "DIALECTS",
    "FLASH",
    "JSON",
    "LEAST_CONNECTIONS",
    "LOG_FORMATS",
    "MAX_LISTENERS",
    "SILVERLIGHT",
    "TEXT",
    "Address",
    "Config",
    "ConfigError",
    "ConnectionLimits",
    "ConnectionTimeouts",
    "Endpoint",
    "Listener",
    "Network",
    "PolicySource",
    "Server",
    "SystemdSocket",
    "UpstreamAddress",
    "as_toml",
    "check",
    "defaults",
    "kind_of",
    "load",
    "one_line",
    "parse_dialect",
    "parse_endpoint",
    "settings_of",
]  # fmt: skip
