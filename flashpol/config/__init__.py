"""Every setting of the server: its default, its bounds and the reason for both, in one place.

A configuration comes from a TOML file (`load`), from command-line flags, or from both, the flags winning. Either way it
ends as frozen dataclasses. Nothing in here opens a socket or looks at a policy; `ConfigError` says in one line what is
wrong, where, and what to do.

    errors.py     ConfigError                        settings.py   the dataclasses, and what only the whole can show
    address.py    Address, Inherited                 toml.py       a file -> Config
    kinds.py      how a setting is written           places.py     where in the file it is written
                                                     render.py     back to TOML
"""

from flashpol.config.address import Address, Endpoint, Inherited, parse_endpoint
from flashpol.config.errors import ConfigError, one_line
from flashpol.config.render import as_toml, defaults
from flashpol.config.settings import (
    DEFAULT_ADMIN,
    DEFAULT_LISTEN,
    DEFAULT_SILVERLIGHT_LISTEN,
    DIALECTS,
    FLASH,
    JSON,
    LOG_FORMATS,
    MAX_LISTENERS,
    SILVERLIGHT,
    TEXT,
    Config,
    Limits,
    Listener,
    PolicySource,
    Server,
    check,
    kind_of,
    parse_dialect,
    settings_of,
)
from flashpol.config.toml import load

__all__ = [
    "DEFAULT_ADMIN", "DEFAULT_LISTEN", "DEFAULT_SILVERLIGHT_LISTEN", "DIALECTS", "FLASH", "JSON", "LOG_FORMATS",
    "MAX_LISTENERS", "SILVERLIGHT", "TEXT", "Address", "Config", "ConfigError", "Endpoint", "Inherited", "Limits",
    "Listener", "PolicySource", "Server", "as_toml", "check", "defaults", "kind_of", "load", "one_line",
    "parse_dialect", "parse_endpoint", "settings_of",
]  # fmt: skip
