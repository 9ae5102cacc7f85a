"""Findings: what lint reports about one place of a file, and how that place is printed."""

import enum
from dataclasses import dataclass
from unicodedata import category, east_asian_width

__all__ = ["CLIENTS", "Finding", "Severity", "cut_out"]

# The clients that read policies. Decisions know one more: see `decide.DECIDE_CLIENTS`.
CLIENTS = ("flash", "lightspark", "unity", "silverlight")

# Characters of a source line that are shown: policies are often one line of thousands of characters.
_SHOWN = 110
_BEFORE = 70  # of these, so many before the place
_CUT = "..."


class Severity(enum.StrEnum):
    """How serious a finding is.

    error     Adobe's grammar forbids it, or a client that the policy is for does not understand it
    warning   the policy works, but not for every client, not as written, or for more content than was probably meant
    note      the policy works as written; the author should know this
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One mistake: what is wrong, where, and what to write instead.

    `line` and `column` count from 1, columns in characters. `source` is the line, or the part of a long line around
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
        """Return everything but the source, on one line."""
        return (
            f"line {self.line}, column {self.column}: {self.severity} {self.code}: {self.message}; {self.instead}"
            f" ({', '.join(self.clients)})"
        )

    def quoting_source(self) -> str:
        """Return all of it in one line, with the source in place of line and column: for text that no file has."""
        return f"{self.code}: {self.message}; {self.instead} ({', '.join(self.clients)}): {self.source.strip()}"

    def excerpt(self, columns: int | None = None) -> str:
        """Return the source line and a caret under the place: two lines, at most `columns` wide if given."""
        return "\n".join(pointed_out(self.source, self.caret, columns))


def cut_out(line: str, column: int) -> tuple[str, int]:
    """Return the part of `line` to show for a finding at `column`, and the index of that column in it."""
    at = column - 1
    begin = max(0, at - _BEFORE) if len(line) > _SHOWN else 0
    part = line[begin : begin + _SHOWN]
    if not part.isprintable():
        part = "".join(c if c.isprintable() else " " if c == "\t" else "\u00b7" for c in part)
    left = _CUT if begin else ""
    return left + part + (_CUT if begin + _SHOWN < len(line) else ""), len(left) + at - begin


def pointed_out(source: str, caret: int, columns: int | None = None) -> tuple[str, str]:
    """Return `source`, cut to `columns` around the place if it is longer, and a caret to print under it.

    Columns are a terminal's: East Asian characters take two, combining characters none.
    """
    widths = _widths(source)
    begin, end = 0, len(source)
    if columns is not None and sum(widths) > columns:
        begin, end = _window(widths, caret, columns - 2 * len(_CUT))
    left, right = _CUT if begin else "", _CUT if end < len(source) else ""
    return f"{left}{source[begin:end]}{right}", " " * (len(left) + sum(widths[begin:caret])) + "^"


def _window(widths: list[int], at: int, room: int) -> tuple[int, int]:
    """Return begin and end of the part to show: two thirds of `room` before `at`, more if less text follows it."""
    begin = end = at
    taken = 0
    while begin > 0 and taken + widths[begin - 1] <= room * 2 // 3:
        begin -= 1
        taken += widths[begin]
    while end < len(widths) and taken + widths[end] <= room:
        taken += widths[end]
        end += 1
    while begin > 0 and taken + widths[begin - 1] <= room:
        begin -= 1
        taken += widths[begin]
    return begin, end


def _widths(text: str) -> list[int]:
    if text.isascii():
        return [1] * len(text)

    return [0 if category(c) in ("Mn", "Me") else 2 if east_asian_width(c) in "WF" else 1 for c in text]
