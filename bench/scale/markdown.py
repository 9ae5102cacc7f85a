"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = -1) -> str:
    """Markdown. numbers: columns at the right that are aligned as numbers; -1: all but the first."""
    count = len(head) - 1 if numbers < 0 else numbers
    rule = ["---"] * (len(head) - count) + ["--:"] * count
    lines = [_line(head), f"|{'|'.join(rule)}|\n", *map(_line, rows)]
    return "".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells) + "\n"
