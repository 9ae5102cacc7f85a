"""What commands write for people: colour for terminals that want it, and text that no terminal obeys or fails at."""

import os
import sys
from collections.abc import Callable

from flashpol.policy.findings import pointed_out

# Narrower than this a source line says nothing any more: let the terminal break it.
_LEAST_COLUMNS = 30


def painter() -> Callable[[str, str], str]:
    """Colour (the parameters of SGR) for a terminal that has it and a user who wants it (no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        return lambda text, colour: f"\033[{colour}m{text}\033[0m"
    return lambda text, colour: text


def excerpt(source: str, caret: int, line: int, paint: Callable[[str], str] = str) -> list[str]:
    """A source line with its number, and a caret under the place: never wider than the terminal."""
    margin = f"  {line} | "
    shown, below = pointed_out(encodable(source), caret, _columns(len(margin)))
    return [f"{margin}{shown}".rstrip(), f"{' ' * (len(margin) - 2)}| {below[:-1]}{paint('^')}"]


def columns() -> int | None:
    """How wide the terminal is; None if there is none, or one that does not say."""
    if not sys.stdout.isatty():
        return None
    import shutil  # and with it bz2 and lzma, 2 ms, for terminals only

    return shutil.get_terminal_size((0, 0)).columns or None


def _columns(margin: int) -> int | None:
    wide = columns()
    return None if wide is None else max(wide - margin, _LEAST_COLUMNS)


def file_name(name: str) -> str:
    """A file's name as it is shown; an empty one, of an unset variable, as quotes."""
    return "<stdin>" if name == "-" else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name) or "''"


def encodable(text: str) -> str:
    """One character for each character, in whatever encoding: what a policy quotes must not end in a traceback."""
    encoding = sys.stdout.encoding or "ascii"
    return text.encode(encoding, "replace").decode(encoding)
