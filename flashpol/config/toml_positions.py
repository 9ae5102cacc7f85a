"""Where in a TOML file each key and element stands, for messages.

tomllib keeps no positions, and no library that reads TOML for Python gives those of values. This walks over the tokens
of a document that tomllib has accepted, so it needs to tell strings, comments and brackets apart and to follow
headers and dotted keys, and nothing more. It never raises: where it loses its way, what follows has no place.
"""

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

from flashpol.config.locations import Path, Position

# TOML 1.0: strings of four kinds, up to two quotes may stand before the closing three; comments; what has a meaning
# between them. All else, numbers and dates and bare keys, is a run of other characters.
_TOKEN = re.compile(
    r"""
      (?P<string> \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2} | '''.*?''''{0,2} | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
    | (?P<newline> \n )
    | (?P<blank> [ \t\r]+ | \#[^\n]* )
    | (?P<mark> [][{}=,.] )
    | (?P<bare> [^\s"'#=,.[\]{}]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str | None
    text: str
    start: int


def find_places(text: str) -> dict[Path, Position]:
    """The place of every key and every array element of a document; of a table, that of its header or first key."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    places = {}
    for path, start in _Walk(text).found.items():
        line = bisect_right(starts, start)
        places[path] = Position(line, start - starts[line - 1] + 1)
    return places


class _Walk:
    """One pass over the tokens; `found` has the index in the text of each path."""

    def __init__(self, text: str) -> None:
        tokens = (_Token(match.lastgroup, match[0], match.start()) for match in _TOKEN.finditer(text))
        self._tokens = [token for token in tokens if token.kind != "blank"]
        self._end = _Token("end", "", len(text))
        self._next = 0
        self._rows: dict[Path, int] = {}  # how many tables each array of tables has so far
        self.found: dict[Path, int] = {}
        self._document()

    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self) -> _Token:
        token = self._peek()
        self._next += 1
        return token

    def _document(self) -> None:
        table: Path = ()
        while (token := self._peek()).kind != "end":
            if token.kind == "newline":
                self._take()
            elif token.text == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`: what follows belongs to the path that is returned."""
        start = self._take().start
        many = self._peek().text == "["
        if many:
            self._take()
        path: Path = ()
        for key in self._keys():
            if path in self._rows:  # a table in an array of tables means the last one
                path += (self._rows[path] - 1,)
            path += (key.text,)
            self.found.setdefault(path, start)
        if many:
            row = self._rows[path] = self._rows.get(path, 0) + 1
            path += (row - 1,)
        self.found[path] = start
        while self._peek().kind not in ("newline", "end"):
            self._take()
        return path

    def _keys(self) -> list[_Token]:
        """The parts of a dotted key, their text without quotes."""
        keys = []
        dot = True
        while dot:
            token = self._take()
            keys.append(token._replace(text=_bare(token)))
            dot = self._peek().text == "."
            if dot:
                self._take()
        return keys

    def _pair(self, path: Path) -> None:
        for key in self._keys():
            path += (key.text,)
            self.found.setdefault(path, key.start)
        if self._peek().text == "=":
            self._take()
            self._value(path)

    def _value(self, path: Path) -> None:
        opening = self._peek().text
        if opening == "[":
            self._take()
            self._elements(path)
        elif opening == "{":
            self._take()
            while self._inside("}"):
                self._pair(path)
        else:
            while self._peek().kind in ("string", "bare") or self._peek().text == ".":
                self._take()

    def _elements(self, path: Path) -> None:
        index = 0
        while self._inside("]"):
            before = self._next
            self.found[*path, index] = self._peek().start
            self._value((*path, index))
            index += 1
            if self._next == before:
                return  # lost: no value begins like this

    def _inside(self, closing: str) -> bool:
        """Go to what comes next within brackets, or past their end."""
        while self._peek().kind == "newline" or self._peek().text == ",":
            self._take()
        if self._peek().text == closing:
            self._take()
            return False
        return self._peek().kind != "end"


def _bare(token: _Token) -> str:
    if token.kind != "string":
        return token.text
    try:
        return str(tomllib.loads(f"key = {token.text}")["key"])
    except ValueError:
        return token.text
