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

from importlib import import_module

from flashpol.config.errors import ConfigError, one_line

TYPE_CHECKING = False  # not typing's: see flashpol
if TYPE_CHECKING:
    from flashpol.config.address import Address, Endpoint, Inherited, Remote, parse_endpoint
    from flashpol.config.toml_loader import load
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
        Caps,
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

__all__ = [
    "DEFAULT_ADMIN", "DEFAULT_LISTEN", "DEFAULT_SILVERLIGHT_LISTEN", "DIALECTS", "FLASH", "JSON",
    "LEAST_CONNECTIONS", "LOG_FORMATS", "MAX_LISTENERS", "SILVERLIGHT", "TEXT", "Address", "Caps", "Config",
    "ConfigError", "Endpoint", "Inherited", "Limits", "Listener", "Network", "PolicySource", "Remote", "Server",
    "as_toml", "check", "defaults", "kind_of", "load", "one_line", "parse_dialect", "parse_endpoint", "settings_of",
]  # fmt: skip

# The rest is loaded when it is first used: commands that configure nothing need the error only, not 15 ms of settings.
_HOMES = {
    "Address": "address",
    "Endpoint": "address",
    "Inherited": "address",
    "Network": "setting_types",
    "Remote": "address",
    "as_toml": "render",
    "defaults": "render",
    "load": "toml_loader",
    "parse_endpoint": "address",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'settings')}"), name)
    globals()[name] = value  # so that it is asked for once
    return value
