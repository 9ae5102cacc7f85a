"""How a setting is written: in TOML, and as the text of a flag."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flashpol.config.address import Endpoint, UpstreamAddress, parse_endpoint
from flashpol.config.errors import ConfigError


def as_written(value: object) -> str:
    """A value of TOML as its writer knows it, in short, for messages."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{…}"
    if isinstance(value, list):
        return "[…]"
    return repr(value) if isinstance(value, str | int | float) else str(value)


def _str_if_any(value: object) -> str | None:
    return None if value is None else str(value)


@dataclass(frozen=True)
class SettingType:
    """What is accepted. `expected` completes "write …"; `types` are TOML's; `parse` may raise ValueError, ConfigError.

    `show` is the way back: a value as TOML has it, None where there is nothing to write.
    """

    expected: str
    types: tuple[type, ...]
    parse: Callable[[Any], Any]
    show: Callable[[Any], str | None] = field(default=_str_if_any, kw_only=True)

    def read(self, key: str, value: object) -> Any:
        """From TOML. Raises ConfigError that begins with the key."""
        fits = isinstance(value, self.types) and (not isinstance(value, bool) or bool in self.types)
        try:
            if fits:
                return self.parse(value)
        except ValueError:
            pass
        raise ConfigError(f"{key} = {as_written(value)}: write {self.expected}")

    def read_text(self, key: str, text: str) -> Any:
        """From a flag. Raises as `read`."""
        return self.read(key, text)


@dataclass(frozen=True)
class Number(SettingType):
    """Within bounds, both included; `off` is a value besides them that switches something off."""

    low: float
    high: float
    whole: bool

    def read_text(self, key: str, text: str) -> Any:
        # float() alone would take "1_0", "nan" and digits of other scripts.
        plain = re.fullmatch(r"[0-9]{1,20}" if self.whole else r"[0-9]{1,20}(\.[0-9]{0,20})?|\.[0-9]{1,20}", text)
        return self.read(key, (int(text) if self.whole else float(text)) if plain else text)


def number(low: float, high: float, *, whole: bool = False, off: float | None = None) -> Number:
    """A number from `low` to `high`; `off` is one more value, which switches something off."""

    def parse(value: float) -> float:
        if not (low <= value <= high or value == off):
            raise ValueError
        return value if whole else float(value)

    bounds = f"a {'whole ' if whole else ''}number from {low:.10g} to {high:.10g}"
    expected = bounds if off is None else f"{off:g} (off) or {bounds}"
    return Number(expected, (int,) if whole else (int, float), parse, low, high, whole)


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


def quoted(text: object) -> str:
    """As a basic string of TOML: printable ASCII as it is, all else escaped. Of names that are no text, nearly."""
    characters = str(text).encode(errors="replace").decode()
    plain = (_ESCAPES.get(c) or (c if " " <= c <= "~" else f"\\U{ord(c):08x}") for c in characters)
    return f'"{"".join(plain)}"'


def as_key(name: str) -> str:
    """A key as TOML writes it: bare, or quoted in one line."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def _quoted_if_any(value: object) -> str | None:
    return None if value is None else quoted(value)


def text(expected: str, parse: Callable[[str], Any] = str) -> SettingType:
    """A string; None stands for none."""
    return SettingType(expected, (str,), parse, show=_quoted_if_any)


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


ABSOLUTE_PATH = text("a folder's absolute path, such as /var/empty", _absolute)
SWITCH = SettingType("true or false", (bool,), bool, show=lambda value: str(value).lower())

ENDPOINT = text('"IP:PORT" or "systemd:NAME"', parse_endpoint)


def _show_grants(grants: Sequence[str]) -> str | None:
    """Each `DOMAIN:PORTS`; ports hold no colon, a domain may."""
    pairs = (grant.rpartition(":")[::2] for grant in grants)
    rows = (f"{{domain = {quoted(domain)}, ports = {quoted(ports)}}}" for domain, ports in pairs)
    return f"[{', '.join(rows)}]" if grants else None


GRANTS = SettingType('[{domain = "*.example.com", ports = "1935,8000-8100"}]', (list,), tuple, show=_show_grants)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """`IP/PREFIX`, or an IP alone. Raises ConfigError."""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        what = f"{text!r} is not a network: write IP/PREFIX, such as 192.0.2.0/24 or 2001:db8::/32"
        raise ConfigError(what) from None
    if "/" in text and not re.fullmatch("[0-9]{1,3}", text.partition("/")[2]):
        raise ConfigError(f"{text!r}: write the prefix as the number of its bits: {network}")
    if ipaddress.ip_address(text.partition("/")[0]) != network.network_address:
        raise ConfigError(f"{text!r} is an address in {network}: write the one or the other")
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped and network.prefixlen >= 96:
        clothes = f"{mapped}/{network.prefixlen - 96}"
        raise ConfigError(f"{text!r} is an IPv4 network in IPv6 clothes: write {clothes}")
    return network


def _networks(values: Sequence[object]) -> tuple[Network, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise ValueError  # an empty list could mean all or none
    return tuple(parse_network(str(value)) for value in values)


def _show_networks(networks: Sequence[Network]) -> str | None:
    return f"[{', '.join(map(quoted, networks))}]" if networks else None


NETWORKS = SettingType('networks, such as ["192.0.2.0/24", "2001:db8::/32"]', (list,), _networks, show=_show_networks)

MAX_UPSTREAMS = 64


def _upstream(value: str | list[object]) -> tuple[UpstreamAddress, ...]:
    texts = [value] if isinstance(value, str) else value
    if not 1 <= len(texts) <= MAX_UPSTREAMS or not all(isinstance(text, str) for text in texts):
        raise ValueError
    remotes = tuple(UpstreamAddress.parse(text) for text in texts if isinstance(text, str))
    twice = next((upstream_address for upstream_address in remotes if remotes.count(upstream_address) > 1), None)
    if twice:
        raise ConfigError(f"upstream {str(twice)!r} is there twice: leave one out")
    return remotes


def _show_upstream(value: Sequence[UpstreamAddress] | None) -> str | None:
    shown = [quoted(upstream_address) for upstream_address in value or ()]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]" if shown else None


UPSTREAM = SettingType(
    f'"HOST:PORT", "unix:/PATH" or a list of up to {MAX_UPSTREAMS} of them', (str, list), _upstream, show=_show_upstream
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
