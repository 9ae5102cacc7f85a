"""What lint says about one place of a file, and how that place is shown."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from .decide import CLIENTS

__all__ = ["CLIENTS", "Finding", "Severity", "cut_out"]

# A source line longer than this is shown in part: policies are often one line of thousands of characters.
_SHOWN = 110
_BEFORE = 70  # of these, so many before the place


class Severity(enum.StrEnum):
    """How bad a finding is.

    error     a client that the policy is for does not understand it, or Adobe's grammar forbids it
    warning   it works, though not for every client, not as written, or for more than was probably meant
    note      worth knowing
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, and what to write instead.

    `line` and `column` count from 1, columns in characters. `source` is the line, or the part of a long one around
    the place, in printable characters; the place is at `source[caret]`.
    """

    code: str
    name: str
    severity: Severity
    message: str
    instead: str
    clients: tuple[str, ...]
    line: int
    column: int
    source: str
    caret: int

    def __str__(self) -> str:
        """Return all of it in one line, but for the source."""
        return (
            f"line {self.line}, column {self.column}: {self.severity} {self.code}: {self.message}; {self.instead}"
            f" ({', '.join(self.clients)})"
        )

    def excerpt(self) -> str:
        """Return the source line with a caret under the place: two lines."""
        return f"{self.source}\n{' ' * self.caret}^"


def cut_out(line: str, column: int) -> tuple[str, int]:
    """Return what is shown of `line` for a finding at `column`, and where in it that column is."""
    at = column - 1
    begin = max(0, at - _BEFORE) if len(line) > _SHOWN else 0
    part = line[begin : begin + _SHOWN]
    if not part.isprintable():
        part = "".join(c if c.isprintable() else " " if c == "\t" else "\u00b7" for c in part)
    left = "..." if begin else ""
    return left + part + ("..." if begin + _SHOWN < len(line) else ""), len(left) + at - begin
