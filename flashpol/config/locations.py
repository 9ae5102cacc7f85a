"""Where a part of the configuration was written."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

# Keys, and indices of arrays, from the top.
Path = tuple[str | int, ...]


class Position(NamedTuple):
    """Line and column, from 1; columns in characters."""

    line: int
    column: int


@dataclass(frozen=True)
class Source:
    """A configuration file: its name as given, and its text."""

    name: str
    text: str = ""

    @cached_property
    def places(self) -> dict[Path, Position]:
        """Looked for only when something is wrong."""
        from flashpol.config.toml_positions import find_places

        return find_places(self.text)


class SourceLocation(NamedTuple):
    """A key or table of a file. As text `FILE:LINE:COLUMN`, of what it is part of if it has no place itself."""

    source: Source
    path: Path = ()

    def inside(self, *path: str | int) -> "SourceLocation":
        return SourceLocation(self.source, self.path + path)

    def __str__(self) -> str:
        path = self.path
        while path and path not in self.source.places:
            path = path[:-1]
        place = self.source.places.get(path)
        return f"{self.source.name}:{place.line}:{place.column}" if place else self.source.name
