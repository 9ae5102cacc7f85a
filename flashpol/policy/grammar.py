"""Attributes: the two dialects check and read them alike, and report each mistake at its place."""

from collections.abc import Callable, Collection
from typing import TypeVar

from flashpol.policy.model import GrammarError, PolicyError, shown
from flashpol.policy.reader import Element

T = TypeVar("T")


def check_attributes(element: Element, known: Collection[str]) -> None:
    """Raise GrammarError for an attribute that is not `known`."""
    for name in element.attributes:
        if name not in known:
            raise GrammarError(
                f"{element.name} has no attribute {shown(name)}",
                f"remove it; the attributes are {', '.join(known)}" if known else "remove it",
                element.name_location(name),
            )


def value(element: Element, name: str, read_value: Callable[[str], T], instead: str) -> T:
    """Read a required attribute. Raises GrammarError if it is missing; errors of `read_value` get the value's place."""
    if name not in element.attributes:
        raise GrammarError(f"{element.name} has no {name}", instead, element.location)
    try:
        return read_value(element.attributes[name])
    except PolicyError as error:
        raise error.at(element.value_location(name)) from None
