"""The definition of a rule, and the registry of all rules.

    @rule("FP409", ERROR, "reversed-range", wrong="the range {range} is reversed", instead='write "{swapped}"', ...)
    def reversed_range(document): yield Hit(location, range="90-80", swapped="80-90")

`wrong` and `instead` are templates that a finding fills with the values of its `Hit`. `bad` is a file that breaks
this rule and no other; `good` breaks none. Both are examples for `example_client`, the first of `clients`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flashpol.policy.findings import CLIENTS, Severity
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.model import Location

__all__ = [
    "ADOBE",
    "CLIENTS",
    "ERROR",
    "GOOD",
    "GROUPS",
    "NAMES",
    "NOTE",
    "READERS",
    "REGISTRY",
    "SOCKET",
    "URL",
    "WARNING",
    "Finder",
    "Hit",
    "Rule",
    "control",
    "flash_file",
    "grant",
    "rule",
]

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

# Clients that read Adobe's dialect; and the ones of them that compare domains (Unity counts "*" only).
ADOBE = ("flash", "lightspark", "unity")
NAMES = ("flash", "lightspark")

# The clients that read a dialect.
READERS = {"flash": ADOBE, "silverlight": ("silverlight",)}

# How a file reaches clients: as the reply to a policy request, or by URL, as crossdomain.xml and
# clientaccesspolicy.xml. A rule is for files of one of these kinds, or of both.
SOCKET, URL = "socket", "url"
_OF_BOTH = frozenset(
    [f"FP{number}" for number in (*range(101, 106), *range(107, 118), 119, 204, 205, 206, 208, 209)]
    + [f"FP{number}" for number in (*range(301, 316), 501, 504, 505, 512, 605, 607)]
    + [f"FP{number}" for number in (*range(801, 809), 810, 812, 813, 814)]
)

# The title of each group of codes.
GROUPS = {
    "FP1": "The document: its bytes, its encoding, its XML, its root",
    "FP2": "Adobe's grammar: elements and attributes",
    "FP3": "Domains",
    "FP4": "Ports",
    "FP5": "site-control, and the port the policy is served from",
    "FP6": "Redundant and over-broad grants",
    "FP7": "How Lightspark and Unity read the policy",
    "FP8": "Silverlight's access-policy",
    "FP9": "Adobe's dialect in files by URL (crossdomain.xml)",
}


class Hit:
    """A place that breaks a rule, and the values for the templates."""

    __slots__ = ("location", "values")

    def __init__(self, location: Location, **values: object) -> None:
        self.location = location
        self.values = values


Finder = Callable[[LintDocument], Iterable[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the registry."""

    code: str
    severity: Severity
    name: str
    wrong: str
    instead: str
    clients: tuple[str, ...]
    bad: str | bytes
    good: str | bytes
    find: Finder
    dialect: str = ""  # the only dialect it applies to; empty: any
    trap: bool = False  # only its clients misread this: an error once one of them is named
    served_from: int | None = None  # the port that serves the bad example
    good_port: int | None = None  # the port that serves the good example
    kinds: tuple[str, ...] = (SOCKET,)  # of files that it is for
    about: str = ""  # what all values of a bare "{reason}" have in common, for the page

    @property
    def example_client(self) -> str:
        return self.clients[0]

    @property
    def only_by_url(self) -> bool:
        """Whether the examples are files by URL."""
        return SOCKET not in self.kinds


REGISTRY: dict[str, Rule] = {}


def rule(
    code: str,
    severity: Severity,
    name: str,
    *,
    wrong: str,
    instead: str,
    clients: tuple[str, ...],
    bad: str | bytes,
    good: str | bytes,
    trap: bool = False,
    served_from: int | None = None,
    good_port: int | None = None,
    kinds: tuple[str, ...] = (SOCKET,),
    about: str = "",
) -> Callable[[Finder], Finder]:
    """Register the decorated function as the finder of a rule."""

    def add(find: Finder) -> Finder:
        if code in REGISTRY:
            raise AssertionError(f"{code} is registered twice")
        dialect = "" if code.startswith("FP1") else "silverlight" if code.startswith("FP8") else "flash"
        REGISTRY[code] = Rule(
            code=code,
            severity=severity,
            name=name,
            wrong=wrong,
            instead=instead,
            clients=clients,
            bad=bad,
            good=good,
            find=find,
            dialect=dialect,
            trap=trap,
            served_from=served_from,
            good_port=served_from if good_port is None else good_port,
            kinds=(SOCKET, URL) if code in _OF_BOTH else kinds,
            about=about,
        )
        return find

    return add


def flash_file(*lines: str) -> str:
    """Return an example: `lines` inside Adobe's root element."""
    return "\n".join(["<cross-domain-policy>", *(f"  {line}" for line in lines), "</cross-domain-policy>"])


def grant(ports: str = "1935", domain: str = "*", more: str = "") -> str:
    """Return an example's `allow-access-from`."""
    return f'<allow-access-from domain="{domain}" to-ports="{ports}"{more}/>'


def control(value: str) -> str:
    """Return an example's `site-control`."""
    return f'<site-control permitted-cross-domain-policies="{value}"/>'


GOOD = flash_file(grant())
