"""FP4xx: the `to-ports` of a grant: ports and ranges between commas, or a single `*`."""

import re
from collections.abc import Iterator
from itertools import pairwise

from flashpol.policy.lint_document import GrantLine, LintDocument
from flashpol.policy.model import HIGHEST_PORT, PortSet, shown
from flashpol.policy.rules.grammar import lacks
from flashpol.policy.rules.registry import ADOBE, ERROR, GOOD, WARNING, Finder, Hit, flash_file, grant, rule
from flashpol.policy.xml_errors import explain_value

_NUMBER = re.compile("[0-9]+")
_RANGE = re.compile("([0-9]+)-([0-9]+)")
_SPACED_RANGE = re.compile(r"[0-9]+\s*-\s*[0-9]+")


def faults(text: str) -> dict[str, dict[str, str]]:
    """Return the mistakes of a port list: for each kind, the values of the first item that has it."""
    items = text.split(",", HIGHEST_PORT)
    if not text.strip(" "):
        return {"empty": {"ports": shown(text)}}
    found: dict[str, dict[str, str]] = {}
    for raw in items:
        kind, values = _fault(raw.strip(" "))
        if kind:
            found.setdefault(kind, values | {"ports": shown(text)})
    if len(items) > HIGHEST_PORT:
        found["item"] = {"item": f"a list of more than {HIGHEST_PORT:,} items", "debris": ""}
    return found


def _fault(item: str) -> tuple[str, dict[str, str]]:  # noqa: PLR0911
    values = {"item": shown(item), "debris": explain_value(item)}
    if not item:
        return "gap", values
    if item == "*":
        return "star", values
    spans = _RANGE.fullmatch(item)
    if not spans and not _NUMBER.fullmatch(item):
        if _SPACED_RANGE.fullmatch(item):
            return "spaced", values | {"closed": shown(re.sub(r"\s", "", item))}
        return "item", values
    numbers = spans.groups() if spans else (item,)
    for number in numbers:
        significant = number.lstrip("0")
        if not significant:
            return "zero", values
        if len(significant) > 5 or int(significant) > HIGHEST_PORT:
            return "high", values | {"port": shown(number)}
        if significant != number:
            return "leading-zero", values | {"number": shown(number), "plain": significant}
    if spans and int(spans[1]) > int(spans[2]):
        return "reversed", values | {"swapped": f"{spans[2]}-{spans[1]}"}
    return "", values


def _of_kind(kind: str) -> Finder:
    def find(document: LintDocument) -> Iterator[Hit]:
        for line, found in document.once(_unreadable_lists):
            if kind in found:
                yield Hit(line.ports_place, **found[kind])

    return find


def _unreadable_lists(document: LintDocument) -> list[tuple[GrantLine, dict[str, dict[str, str]]]]:
    return [
        (line, faults(line.ports_text))
        for line in document.grants
        if line.ports is None and "to-ports" in line.element.attributes and not line.unreadable
    ]


@rule(
    "FP401", ERROR, "missing-to-ports",
    wrong="the grant names no ports: Flash requires them, Lightspark rejects the file, Unity opens every port",
    instead='write to-ports="1935,8000-8100", or "*" for all',
    clients=ADOBE, bad=flash_file('<allow-access-from domain="*"/>'), good=GOOD,
)  # fmt: skip
def missing_to_ports(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if lacks(line.element, "to-ports"):
            yield Hit(line.element.location)


rule(
    "FP402", ERROR, "empty-to-ports",
    wrong="the port list is empty", instead='write ports such as "1935,8000-8100", or "*" for all',
    clients=ADOBE, bad=flash_file(grant("")), good=GOOD,
)(_of_kind("empty"))  # fmt: skip

rule(
    "FP403", ERROR, "extra-comma",
    wrong="an item of the port list {ports} is empty", instead="remove the extra comma",
    clients=ADOBE, bad=flash_file(grant("1935,")), good=flash_file(grant("1935,843")),
)(_of_kind("gap"))  # fmt: skip

rule(
    "FP404", ERROR, "star-among-ports",
    wrong='"*" is mixed with ports in {ports}', instead='write "*" alone, or only ports',
    clients=ADOBE, bad=flash_file(grant("1935,*")), good=flash_file(grant("1935,843")),
)(_of_kind("star"))  # fmt: skip

rule(
    "FP405", ERROR, "not-a-port",
    wrong="{item} is neither a port nor a range{debris}",
    instead='write ports as "1935" or "8000-8100", separated by commas',
    clients=ADOBE, bad=flash_file(grant("1935;843")), good=flash_file(grant("1935,843")),
)(_of_kind("item"))  # fmt: skip

rule(
    "FP406", ERROR, "spaces-in-range",
    wrong="the range {item} has spaces in it", instead="write {closed}",
    clients=ADOBE, bad=flash_file(grant("8000 - 8100")), good=flash_file(grant("8000-8100")),
)(_of_kind("spaced"))  # fmt: skip

rule(
    "FP407", ERROR, "port-zero",
    wrong="there is no port 0, as in {item}", instead=f"write a port from 1 to {HIGHEST_PORT}",
    clients=ADOBE, bad=flash_file(grant("0-65535")), good=flash_file(grant("1024-1400")),
)(_of_kind("zero"))  # fmt: skip

rule(
    "FP408", ERROR, "port-too-high",
    wrong="there is no port {port}", instead=f"write a port from 1 to {HIGHEST_PORT}",
    clients=ADOBE, bad=flash_file(grant("65536")), good=flash_file(grant("65535")),
)(_of_kind("high"))  # fmt: skip

rule(
    "FP409", ERROR, "reversed-range",
    wrong="the range {item} is reversed", instead='write "{swapped}"',
    clients=ADOBE, bad=flash_file(grant("8100-8000")), good=flash_file(grant("8000-8100")),
)(_of_kind("reversed"))  # fmt: skip

rule(
    "FP410", ERROR, "leading-zero",
    wrong="the port {number} begins with a zero", instead='write "{plain}"',
    clients=ADOBE, bad=flash_file(grant("0843")), good=flash_file(grant("843")),
)(_of_kind("leading-zero"))  # fmt: skip


@rule(
    "FP411", WARNING, "spaces-in-to-ports",
    wrong="the port list {ports} has spaces, which Adobe's grammar does not allow", instead="write {closed}",
    clients=ADOBE, bad=flash_file(grant("1935, 843")), good=flash_file(grant("1935,843")),
)  # fmt: skip
def spaces_in_to_ports(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        text = line.ports_text
        if line.ports is not None and " " in text:
            yield Hit(line.ports_place, ports=shown(text), closed=shown(text.replace(" ", "")))


@rule(
    "FP412", WARNING, "repeated-ports",
    wrong="the port list {ports} names some ports twice", instead="write {plain}",
    clients=ADOBE, bad=flash_file(grant("843,1935,843")), good=flash_file(grant("843,1935")),
)  # fmt: skip
def repeated_ports(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if line.ports is not None and _overlaps(line.ports_text):
            yield Hit(line.ports_place, ports=shown(line.ports_text), plain=shown(_plain(line.ports)))


def _plain(ports: PortSet) -> str:
    return ports.listed(singly=2)


def _overlaps(text: str) -> bool:
    """Return whether the list repeats ports, other than a single port beside a range that contains it.

    Lightspark and Unity misread ranges (FP701, FP703), and read that single port.
    """
    if "," not in text:
        return False
    spans = sorted(
        (int(low), int(high or low)) for low, _, high in (item.strip(" ").partition("-") for item in text.split(","))
    )
    singles = [low for low, high in spans if low == high]
    ranges = [(low, high) for low, high in spans if low < high]
    return (
        any(one == following for one, following in pairwise(singles))
        or any(following[0] <= one[1] for one, following in pairwise(ranges))
        or any(low in singles for low, _ in ranges)
    )
