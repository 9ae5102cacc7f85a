"""Output for people: colour if the terminal supports it, and text without control characters for any encoding."""

import os
import sys
from collections.abc import Callable

from flashpol.policy.findings import pointed_out

# A narrower excerpt is useless: wider lines are then left to the terminal to break.
_LEAST_COLUMNS = 30


def painter() -> Callable[[str, str], str]:
    """Return a function (text, SGR parameters) that adds colour if the terminal and the user (no-color.org) want it."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return lambda text, colour: f"\033[{colour}m{text}\033[0m"
    return lambda text, colour: text


def excerpt(source: str, caret: int, line: int, paint: Callable[[str], str] = str) -> list[str]:
    """Return a numbered source line and a caret under the place, not wider than the terminal."""
    margin = f"  {line} | "
    shown, below = pointed_out(encodable(source), caret, _columns(len(margin)))
    return [f"{margin}{shown}".rstrip(), f"{' ' * (len(margin) - 2)}| {below[:-1]}{paint('^')}"]


def columns() -> int | None:
    """Return the width of the terminal; None if there is none or it does not report one."""
    if not sys.stdout.isatty():
        return None
    import shutil  # loads bz2 and lzma, 2 ms, only needed on a terminal

    return shutil.get_terminal_size((0, 0)).columns or None


def _columns(margin: int) -> int | None:
    wide = columns()
    return None if wide is None else max(wide - margin, _LEAST_COLUMNS)


def file_name(name: str) -> str:
    """Return a printable file name; an empty one, as from an unset shell variable, as quotes."""
    return "<stdin>" if name == "-" else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) or "''"


def encodable(text: str) -> str:
    """Replace characters that the output encoding lacks, one by one: quoted text must not end in a traceback."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)
