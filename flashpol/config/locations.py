"""Where a key or a table was written: file, line and column."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# Keys, and indices of arrays, from the top level.
Path = tuple[str | int, ...]


class Position(NamedTuple):
    """Line and column, both from 1; columns count characters."""

    line: int
    column: int


@dataclass(frozen=True)
class Source:
    """A configuration file: its name as given, and its text."""

    name: str
    text: str = ""

    @cached_property
    def positions(self) -> dict[Path, Position]:
        """Computed only for an error message: a correct file is never tokenized a second time."""
        from flashpol.config.toml_positions import find_positions

        return find_positions(self.text)


class SourceLocation(NamedTuple):
    """A key or table of a file. Its text is `FILE:LINE:COLUMN`; a path without a position takes its parent's."""

    source: Source
    path: Path = ()

    def child(self, *path: str | int) -> "SourceLocation":
        """The location of a key or element below this one."""
        return SourceLocation(self.source, self.path + path)

    def __str__(self) -> str:
        path = self.path
        while path and path not in self.source.positions:
            path = path[:-1]
        position = self.source.positions.get(path)
        return f"{self.source.name}:{position.line}:{position.column}" if position else self.source.name
