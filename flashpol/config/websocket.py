"""The settings of a WebSocket path, and how its path and its origins are written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from flashpol.config.address import UpstreamAddress
from flashpol.config.declare import required, setting
from flashpol.config.errors import ConfigError
from flashpol.config.locations import SourceLocation
from flashpol.config.setting_types import SWITCH, UPSTREAM, SettingType, number, quoted, text

EVERY_PATH = "*"
BY_POLICY, ANY_ORIGIN = "policy", "any"
MAX_PATHS = 256  # of a listener
MAX_ORIGINS = 256  # of a path
_MAX_PATH_BYTES = 1024  # half of what the target of a request may have
# RFC 3986 section 3.3. A browser sends other characters escaped, so they would never match.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?=/|\Z)", re.IGNORECASE)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _path(value: str) -> str:
    if value == EVERY_PATH:
        return value
    if not value.startswith("/"):
        raise ConfigError(f'{value!r} does not begin with a slash: write "/{value}", or "*" for every other path')
    for mark, what in (("?", "a query, which is ignored"), ("#", "a fragment, which no client sends")):
        if mark in value:
            raise ConfigError(f"{value!r} has {what}: write {quoted(value.partition(mark)[0])}")
    if len(value) > _MAX_PATH_BYTES:
        raise ConfigError(f"the path has {len(value):,} characters: write at most {_MAX_PATH_BYTES:,}")
    if not _PATH.fullmatch(value):
        raise ConfigError(
            f"{value!r} is not the path of a URL: write letters, digits and -._~/, and anything else as % and two "
            "hexadecimal digits"
        )
    if _DOT_SEGMENT.search(value):
        raise ConfigError(f"{value!r}: clients remove . and .. before they connect: write the path without them")
    return value


PATH = text(f'a path, such as "/chess", or "{EVERY_PATH}"', _path)


def _origin(value: object) -> str:
    """The origin as browsers send it: in lower case, without the default port of its scheme."""
    if not isinstance(value, str) or not value:
        raise ValueError
    origin = value.lower()
    if origin == "null":
        raise ConfigError(
            '"null" is the origin of local files and of sandboxed frames, which any page may have: write origins = '
            '"any" if every page may connect'
        )
    if origin in ("*", ANY_ORIGIN, BY_POLICY):
        raise ConfigError(
            f'{value!r} is no origin: write origins = "{BY_POLICY if origin == BY_POLICY else ANY_ORIGIN}"'
        )
    scheme, colon, rest = origin.partition("://")
    if not colon:
        raise ConfigError(f"{value!r} has no scheme: write {quoted(f'https://{origin}')}")
    if "/" in rest or "?" in rest or "#" in rest:
        alone = re.split("[/?#]", rest)[0]
        raise ConfigError(f"{value!r}: an origin has no path: write {quoted(f'{scheme}://{alone}')}")
    if not rest.isascii():
        raise ConfigError(f'{value!r}: browsers send international names in ASCII: write the "xn--" form')
    match = _ORIGIN.fullmatch(origin)
    host = _host(match[3], wildcard=bool(match[2])) if match else None
    port = int(match[4]) if match and match[4] else None
    if not (match and host) or port == 0 or (port or 0) > 65535:
        raise ConfigError(
            f'{value!r} is no origin: write SCHEME://HOST or SCHEME://HOST:PORT, such as "https://games.example.com"; '
            'a host name may begin with "*."'
        )
    suffix = "" if port in (None, _DEFAULT_PORTS.get(scheme)) else f":{port}"
    return f"{scheme}://{match[2] or ''}{host}{suffix}"


def _host(text: str, *, wildcard: bool) -> str | None:
    """A host name or an address as browsers write it; None for anything else."""
    labels = text.split(".")
    if text.startswith("[") or labels[-1].isdigit():
        try:
            address = ip_address(text.strip("[]"))
        except ValueError:
            return None
        written = f"[{address}]" if address.version == 6 else str(address)
        return None if wildcard or text.startswith("[") is not (address.version == 6) else written
    return text if len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) else None


def _origins(value: str | list[object]) -> str | tuple[str, ...]:
    if isinstance(value, str):
        if value in (BY_POLICY, ANY_ORIGIN):
            return value
        if value == "*":
            raise ConfigError(f'"*" is no origin: write "{ANY_ORIGIN}"')
        if "://" in value:
            raise ConfigError(f"write a list: [{quoted(_origin(value))}]")
        raise ValueError
    if not 1 <= len(value) <= MAX_ORIGINS:
        raise ValueError
    found: list[str] = []
    for each in map(_origin, value):
        if each in found:
            raise ConfigError(f"{each!r} is listed twice: remove one")
        found.append(each)
    return tuple(found)


def _show_origins(value: str | Sequence[str]) -> str:
    return quoted(value) if isinstance(value, str) else f"[{', '.join(map(quoted, value))}]"


ORIGINS = SettingType(
    f'"{BY_POLICY}", "{ANY_ORIGIN}" or a list of up to {MAX_ORIGINS} origins, such as ["https://games.example.com"]',
    (str, list),
    _origins,
    show=_show_origins,
)


@dataclass(frozen=True)
class WebSocketPath:
    """A path at which a listener takes WebSocket connections, and where it relays them."""

    path: str = required(
        PATH,
        'Clients connect to this path, in exactly these characters; a query after it is ignored, and "*" is every path '
        "that no other table names.",
        "It has no default, so that each game has an address of its own.",
        "/chess",
    )
    upstream: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "Connections of this path are relayed to one of these addresses; a host name means all its addresses.",
        "Without it they are relayed to the `upstream` of the listener.",
        (UpstreamAddress("127.0.0.1", 7001),),
    )
    port: int | None = setting(
        None,
        number(1, 65535, whole=True),
        'The content asks for a connection to this port, and with origins = "policy" the policy must grant it.',
        "Without it that is the port on which clients reach the listener.",
        7001,
    )
    origins: str | tuple[str, ...] = setting(
        BY_POLICY,
        ORIGINS,
        'Pages may connect if the policy grants the port to their host ("policy"), if their origin is in this list, '
        'scheme://host[:port] where a host may begin with "*.", or always ("any").',
        "Flash Player asked the policy before it connected; Ruffle does not, so the server does.",
    )
    without_origin: bool = setting(
        False,
        SWITCH,
        "If true, clients that send no Origin may connect too, whatever `origins` says.",
        "Browsers always send one, so such a client is a program, which could pretend any origin.",
    )
    text: bool = setting(
        False,
        SWITCH,
        "If true, text messages are relayed as their bytes; otherwise one ends the session (close code 1003).",
        "It is off because Ruffle sends binary messages only.",
    )
    compression: bool = setting(
        False,
        SWITCH,
        "If true, messages are compressed where the client offers permessage-deflate and lets the server limit its "
        "window, as Chromium does.",
        "It is off because messages of games are short, and compressing one of 100 bytes takes nearly as much CPU as "
        "relaying it.",
    )
    location: SourceLocation | None = field(default=None, compare=False, repr=False)


# What `websocket = true` means.
EVERY_PATH_TO_UPSTREAM = (WebSocketPath(EVERY_PATH),)


def _websocket(value: bool | list[object]) -> Any:
    """The paths of `true` and `false`; tables are left to the loader, which knows where they were written."""
    if isinstance(value, bool):
        return EVERY_PATH_TO_UPSTREAM if value else ()
    if not 1 <= len(value) <= MAX_PATHS:
        raise ValueError
    return value


def _show_websocket(value: Sequence[WebSocketPath]) -> str | None:
    """None for paths that need tables of their own."""
    return {(): "false", EVERY_PATH_TO_UPSTREAM: "true"}.get(tuple(value))


WEBSOCKET = SettingType(
    f"true, false or up to {MAX_PATHS} [[listeners.websocket]] tables", (bool, list), _websocket, show=_show_websocket
)
