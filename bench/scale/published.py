"""Read figures from the tables of `docs/performance.md`, the one place where they are published."""

import re
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
NUMBER = r"(?<![\d.,])(\d+(?:,\d{3})*(?:\.\d+)?)(?![\d%])"
Row = dict[str, str]  # cells by the head of their column; the first column's is ""


@dataclass(frozen=True)
class Place:
    """Where a figure is. row: the start of the row's first cell, up to its end or to `,`, `;`, `:` or `(`; column: the
    head of its column. The figure is what the pattern captures first in that cell. Without a row: in the text of the
    section."""

    section: str
    row: str = ""
    column: str = ""
    pattern: str = NUMBER

    def find(self, page: str) -> str:
        """The figure as it is written there. Raises BenchError unless exactly one place is found."""
        text = section(page, self.section)
        where = f"docs/performance.md, section '{self.section}'"
        if self.row:
            where = f"{where}, row '{self.row}', column '{self.column}'"
            cells = [row[self.column] for row in rows(text) if self.column in row and _begins(row, self.row)]
            if len(cells) != 1:
                raise BenchError(
                    f"{where}: {len(cells)} cells instead of one: correct the page or bench/scale/figures.py"
                )
            text = cells[0]
        found = re.search(self.pattern, text)
        if not found:
            raise BenchError(f"{where}: no figure: correct the page or bench/scale/figures.py")
        return found[1]


def _begins(row: Row, words: str) -> bool:
    first = next(iter(row.values()))
    return bool(re.match(rf"{re.escape(words)}\s*($|[,;:(])", first))


def section(page: str, heading: str) -> str:
    """What is below `## heading`."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return found[1] if found else ""


def rows(text: str) -> list[Row]:
    """The rows of all tables; a column without a head is named by its number."""
    found: list[Row] = []
    head: list[str] = []
    for line in text.splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip().replace("**", "") for cell in line.strip().strip("|").split("|")]
        if not head:
            head = [cell or str(number) for number, cell in enumerate(cells)]
        elif not set("".join(cells)) <= set("-:"):
            found.append(dict(zip(head, cells, strict=False)))
    return found
