"""The types of settings: how a value is written in TOML and as the text of a flag, and how it is printed."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flashpol.config.address import Endpoint, UpstreamAddress, parse_endpoint
from flashpol.config.errors import ConfigError


def as_written(value: object) -> str:
    """A TOML value as an operator writes it; tables and arrays shortened. For messages."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{…}"
    if isinstance(value, list):
        return "[…]"
    return repr(value) if isinstance(value, str | int | float) else str(value)


def _str_or_none(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True)
class SettingType:
    """What values are accepted, and how.

    expected: completes "write …" in error messages and documents.
    types: the TOML types that `parse` takes.
    parse: raises ValueError, which becomes "write …", or ConfigError with words of its own.
    show: a value as TOML; None if there is nothing to write.
    """

    expected: str
    types: tuple[type, ...]
    parse: Callable[[Any], Any]
    show: Callable[[Any], str | None] = field(default=_str_or_none, kw_only=True)

    def read(self, key: str, value: object) -> Any:
        """A value from TOML. Raises ConfigError that begins with the key."""
        try:
            return self._parsed(value)
        except ValueError:
            raise ConfigError(f"{key} = {as_written(value)}: write {self.expected}") from None
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None

    def read_text(self, flag: str, text: str) -> Any:
        """A value from the text of a flag. Raises ConfigError that begins with the flag."""
        try:
            return self._parsed(self._from_text(text))
        except ValueError:
            raise ConfigError(f"{flag} {text!r}: write {self.expected}") from None
        except ConfigError as error:
            raise ConfigError(f"{flag}: {error}") from None

    def _from_text(self, text: str) -> object:
        return text

    def _parsed(self, value: object) -> Any:
        if not isinstance(value, self.types) or (isinstance(value, bool) and bool not in self.types):
            raise ValueError
        return self.parse(value)


@dataclass(frozen=True)
class Number(SettingType):
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool

    def _from_text(self, text: str) -> object:
        # float() alone would accept "1_0", "nan" and digits of other scripts.
        plain = re.fullmatch(r"[0-9]{1,20}" if self.whole else r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}", text)
        return (int(text) if self.whole else float(text)) if plain else text


def number(low: float, high: float, *, whole: bool = False, off: float | None = None) -> Number:
    """A number from `low` to `high`; `off` is one more accepted value, which disables the feature."""

    def parse(value: float) -> float:
        if not (low <= value <= high or value == off):
            raise ValueError
        return value if whole else float(value)

    bounds = f"a {'whole ' if whole else ''}number from {low:.10g} to {high:.10g}"
    expected = bounds if off is None else f"{off:g} (off) or {bounds}"
    return Number(expected, (int,) if whole else (int, float), parse, low, high, whole)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def quoted(text: object) -> str:
    """A TOML basic string: printable ASCII unchanged, the rest escaped; bytes that are not UTF-8 become `?`."""
    characters = str(text).encode(errors="replace").decode()
    plain = (_ESCAPES.get(c) or (c if " " <= c <= "~" else f"\\U{ord(c):08x}") for c in characters)
    return f'"{"".join(plain)}"'


def as_key(name: str) -> str:
    """A TOML key: bare if it can be, else quoted."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def _quoted_or_none(value: object) -> str | None:
    return None if value is None else quoted(value)


def text(expected: str, parse: Callable[[str], Any] = str) -> SettingType:
    """A string; None means that it is not set."""
    return SettingType(expected, (str,), parse, show=_quoted_or_none)


def choice(*values: str) -> SettingType:
    def parse(value: str) -> str:
        if value not in values:
            raise ValueError
        return value

    return text(" or ".join(f'"{value}"' for value in values), parse)


def path(expected: str) -> SettingType:
    def parse(value: str) -> Path:
        if "\0" in value:
            raise ValueError
        return Path(value)

    return text(expected, parse)


def _absolute(text: str) -> Path:
    path = Path(text)
    if "\0" in text or not path.is_absolute():
        raise ValueError
    return path


ABSOLUTE_PATH = text("a folder's absolute path, such as /srv/empty", _absolute)
ABSOLUTE_FILE = text("a file's absolute path, such as /var/log/flashpol/flashpol.log", _absolute)
SWITCH = SettingType("true or false", (bool,), bool, show=lambda value: str(value).lower())


def _true(value: bool) -> bool:
    if not value:
        raise ValueError
    return value


TRUE = SettingType("true", (bool,), _true, show=lambda value: "true" if value else None)

ENDPOINT = text('"IP:PORT" or "systemd:NAME"', parse_endpoint)


def _show_grants(grants: Sequence[str]) -> str | None:
    """`DOMAIN:PORTS` each, divided at the last colon: a domain may hold colons, ports cannot."""
    pairs = (grant.rpartition(":")[::2] for grant in grants)
    rows = (f"{{domain = {quoted(domain)}, ports = {quoted(ports)}}}" for domain, ports in pairs)
    return f"[{', '.join(rows)}]" if grants else None


GRANTS = SettingType('[{domain = "*.example.com", ports = "1935,8000-8100"}]', (list,), tuple, show=_show_grants)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """`IP/PREFIX`, or an IP address alone. Raises ConfigError."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        message = f"{text!r} is not a network: write IP/PREFIX, such as 192.0.2.0/24 or 2001:db8::/32"
        raise ConfigError(message) from None
    if "/" in text and not re.fullmatch("[0-9]{1,3}", text.partition("/")[2]):
        raise ConfigError(f"{text!r}: write the prefix as a number of bits: {network}")
    if ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise ConfigError(f"{text!r} is an address in {network}: write that network, or the address without a prefix")
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped and network.prefixlen >= 96:
        raise ConfigError(f"{text!r} is an IPv4-mapped IPv6 network; write {mapped}/{network.prefixlen - 96}")
    return network


def _networks(values: Sequence[object]) -> tuple[Network, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError  # an empty list could mean all clients or none
    return tuple(parse_network(str(value)) for value in values)


def _show_networks(networks: Sequence[Network]) -> str | None:
    return f"[{', '.join(map(quoted, networks))}]" if networks else None


NETWORKS = SettingType('networks, such as ["192.0.2.0/24", "2001:db8::/32"]', (list,), _networks, show=_show_networks)

MAX_UPSTREAMS = 64


def _upstream(value: str | list[object]) -> tuple[UpstreamAddress, ...]:
    texts = [value] if isinstance(value, str) else value
    if not 1 <= len(texts) <= MAX_UPSTREAMS or not all(isinstance(text, str) for text in texts):
        raise ValueError
    addresses = tuple(UpstreamAddress.parse(text) for text in texts if isinstance(text, str))
    duplicate = next((address for address in addresses if addresses.count(address) > 1), None)
    if duplicate:
        raise ConfigError(f"{str(duplicate)!r} is listed twice: remove one")
    return addresses


def _show_upstream(value: Sequence[UpstreamAddress] | None) -> str | None:
    shown = [quoted(address) for address in value or ()]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]" if shown else None


UPSTREAM = SettingType(
    f'"HOST:PORT", "unix:/PATH" or a list of up to {MAX_UPSTREAMS} of them', (str, list), _upstream, show=_show_upstream
)

MAX_SOURCES = 64
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
CLIENT = "client"
UpstreamSource = tuple[IpAddress, ...] | Literal["client"]


def _sources(value: str | list[object]) -> UpstreamSource:
    if value == CLIENT:
        return "client"
    texts = [value] if isinstance(value, str) else value
    if not 1 <= len(texts) <= MAX_SOURCES:
        raise ValueError
    found: list[IpAddress] = []
    for text in texts:
        if not isinstance(text, str) or "%" in text:
            raise ValueError
        if text == CLIENT:
            raise ConfigError(f'"{CLIENT}" goes with no address: write "{CLIENT}" alone, or addresses')
        address = ipaddress.ip_address(text)
        if address.is_unspecified or address.is_multicast:
            raise ConfigError(f"{text!r} is not the address of a host")
        if mapped := getattr(address, "ipv4_mapped", None):
            raise ConfigError(f"{text!r} is an IPv4-mapped IPv6 address; write {mapped}")
        if address in found:
            raise ConfigError(f"{text!r} is listed twice: remove one")
        found.append(address)
    return tuple(found)


def _show_sources(value: UpstreamSource) -> str | None:
    if value == CLIENT:
        return quoted(CLIENT)
    shown = [quoted(address) for address in value]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]" if shown else None


SOURCES = SettingType(
    f'an IP address, such as "192.0.2.1", a list of up to {MAX_SOURCES} of them, or "{CLIENT}"',
    (str, list),
    _sources,
    show=_show_sources,
)

MAX_CERTIFICATES = 256  # of a listener


def _certificates(values: list[object]) -> tuple[str, ...]:
    names = tuple(value for value in values if isinstance(value, str) and value)
    if not 1 <= len(values) <= MAX_CERTIFICATES or len(names) < len(values):
        raise ValueError
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate:
        raise ConfigError(f"{duplicate!r} is listed twice: remove one")
    return names


CERTIFICATES = SettingType(
    f'a list of up to {MAX_CERTIFICATES} names of [certificates.NAME] tables, such as ["games"]',
    (list,),
    _certificates,
    show=lambda names: f"[{', '.join(map(quoted, names))}]" if names else None,
)

MAX_WORKERS = 256


def _workers(value: str | int) -> int:
    if value == "auto":
        return 0
    if not re.fullmatch(r"[0-9]{1,4}", str(value)) or not 1 <= int(value) <= MAX_WORKERS:
        raise ValueError
    return int(value)


WORKERS = SettingType(
    f'"auto" or a number from 1 to {MAX_WORKERS}',
    (int, str),
    _workers,
    show=lambda value: str(value or quoted("auto")),
)


def _admin(value: str) -> Endpoint | None:
    return None if value == "off" else parse_endpoint(value)


ADMIN = SettingType('"IP:PORT", "systemd:NAME" or "off"', (str,), _admin, show=lambda value: quoted(value or "off"))
