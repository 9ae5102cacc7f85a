"""The position of every key and array element of a TOML file, for error messages.

tomllib keeps no positions, and no TOML library for Python reports those of values. An error needs them: a file may have
1,024 `[[listeners]]`, and hundreds of grants in one array; "grant 212" without a line has to be counted by hand.
Searching for `key =` line by line would be shorter, but wrong for inline tables, dotted keys and arrays over several
lines. So this walks over the tokens of a document that tomllib has already accepted: it only has to tell strings,
comments and brackets apart and to follow headers and dotted keys. It never raises; after a token that it does not
expect, the rest has no positions, and messages name the file and the table alone.
"""

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

from flashpol.config.locations import Path, Position

# TOML 1.0: the four kinds of string (a multi-line one may end in up to two quotes before its closing three), comments,
# and punctuation. Numbers, dates and bare keys are runs of other characters.
_TOKEN = re.compile(
    r"""
      (?P<string> \"\"\"(?:\\.|[^\\])*?\"\"\"\"{0,2} | '''.*?''''{0,2} | "(?:\\.|[^"\\\n])*" | '[^'\n]*' )
    | (?P<newline> \n )
    | (?P<blank> [ \t\r]+ | \#[^\n]* )
    | (?P<punctuation> [][{}=,.] )
    | (?P<bare> [^\s"'#=,.[\]{}]+ )
    """,
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str | None
    text: str
    start: int


def find_positions(text: str) -> dict[Path, Position]:
    """The position of every key and array element of a document; that of a table is its header or its first key."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    positions = {}
    for path, start in _Walker(text).found.items():
        line = bisect_right(starts, start)
        positions[path] = Position(line, start - starts[line - 1] + 1)
    return positions


class _Walker:
    """One pass over the tokens. `found`: path -> index in the text."""

    def __init__(self, text: str) -> None:
        tokens = (_Token(match.lastgroup, match[0], match.start()) for match in _TOKEN.finditer(text))
        self._tokens = [token for token in tokens if token.kind != "blank"]
        self._end = _Token("end", "", len(text))
        self._next = 0
        self._rows: dict[Path, int] = {}  # array of tables -> its number of tables so far
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
        """`[a.b]` or `[[a.b]]`; returns the path that the following pairs belong to."""
        start = self._take().start
        is_array = self._peek().text == "["
        if is_array:
            self._take()
        path: Path = ()
        for key in self._keys():
            if path in self._rows:  # the name of an array of tables means its last table
                path += (self._rows[path] - 1,)
            path += (key.text,)
            self.found.setdefault(path, start)
        if is_array:
            row = self._rows[path] = self._rows.get(path, 0) + 1
            path += (row - 1,)
        self.found[path] = start
        while self._peek().kind not in ("newline", "end"):
            self._take()
        return path

    def _keys(self) -> list[_Token]:
        """The parts of a dotted key, with their text unquoted."""
        keys = []
        more = True
        while more:
            token = self._take()
            keys.append(token._replace(text=_unquoted(token)))
            more = self._peek().text == "."
            if more:
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
            while self._next_item("}"):
                self._pair(path)
        else:
            while self._peek().kind in ("string", "bare") or self._peek().text == ".":
                self._take()

    def _elements(self, path: Path) -> None:
        index = 0
        while self._next_item("]"):
            before = self._next
            self.found[*path, index] = self._peek().start
            self._value((*path, index))
            index += 1
            if self._next == before:
                return  # no value begins with this token

    def _next_item(self, closing: str) -> bool:
        """Move to the next item within brackets; False past the closing one or at the end of the text."""
        while self._peek().kind == "newline" or self._peek().text == ",":
            self._take()
        if self._peek().text == closing:
            self._take()
            return False
        return self._peek().kind != "end"


def _unquoted(token: _Token) -> str:
    if token.kind != "string":
        return token.text
    try:
        return str(tomllib.loads(f"key = {token.text}")["key"])
    except ValueError:
        return token.text
