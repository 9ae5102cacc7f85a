"""Positions of keys and values, compared with tomllib on generated documents of every shape."""

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol.config.locations import Path, Position
from flashpol.config.toml_positions import find_positions
from testkit.examples import examples

DOCUMENT = """\
# [no.header] = 1
title = "a # b"
'quoted key' . b = [ 1, [2, 3], # ]
  {x = 1, y = "}"} ]
[server]
workers = 4
text = \"\"\"
[not.a.header]
key = 1 \\\"\"\" ""\"\"\"
date = 1979-05-27 07:32:00
[[rows]]
name = 'a'
  [rows.inner]
  n = 1.5
[[rows]]
n.m = 1
[[ rows . "deep er" ]]
[a.b]
[a]
"""


@pytest.mark.parametrize(
    ("path", "position"),
    [
        (("title",), (2, 1)),
        (("quoted key",), (3, 1)),
        (("quoted key", "b"), (3, 16)),
        (("quoted key", "b", 0), (3, 22)),
        (("quoted key", "b", 1), (3, 25)),
        (("quoted key", "b", 1, 1), (3, 29)),
        (("quoted key", "b", 2), (4, 3)),
        (("quoted key", "b", 2, "y"), (4, 11)),
        (("server",), (5, 1)),
        (("server", "workers"), (6, 1)),
        (("server", "text"), (7, 1)),
        (("server", "date"), (10, 1)),
        (("rows",), (11, 1)),
        (("rows", 0), (11, 1)),
        (("rows", 0, "inner"), (13, 3)),
        (("rows", 0, "inner", "n"), (14, 3)),
        (("rows", 1), (15, 1)),
        (("rows", 1, "n", "m"), (16, 3)),
        (("rows", 1, "deep er", 0), (17, 1)),
        (("a",), (19, 1)),
        (("a", "b"), (18, 1)),
    ],
)
def test_find_positions_of_a_document_finds_each_path(path: Path, position: tuple[int, int]) -> None:
    assert find_positions(DOCUMENT)[path] == Position(*position)
    assert find_positions(DOCUMENT.replace("\n", "\r\n"))[path] == Position(*position)


def paths(value: object, at: Path = ()) -> Iterator[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from paths(inner, (*at, key))


# Documents as text: a TOML writer would never produce the odd spellings that the walker must follow.
BARE = st.sampled_from(["a", "b", "c-d", "1", "_"])
QUOTED = st.sampled_from(['"a"', "'b'", '"c.d"', '""', "'#'", '"\\u0061"', '"]="', "'[x]'"])
BLANK = st.sampled_from(["", " ", "\t "])
LINE_BREAK = st.sampled_from(["", " ", "\n", " # ]}\"'\n", "\r\n"])
SCALAR = st.sampled_from([
    "1", "-1.5e3", "true", "inf", "1979-05-27", "1979-05-27 07:32:00", "07:32:00.5", '"x"', "'y'", '"\\"]"', "'\\'",
    '""', "''", '""""""', "''''''", '"""a"b""c\n[x]\n\\""""""', "'''a''b\n#'\n'''''", '"""\\\n  a"""', '"# no"',
])  # fmt: skip
KEY = st.lists(BARE | QUOTED, min_size=1, max_size=3).flatmap(
    lambda parts: st.lists(BLANK, min_size=len(parts), max_size=len(parts)).map(
        lambda blanks: ".".join(f"{blank}{part}{blank}" for blank, part in zip(blanks, parts, strict=True))
    )
)


def pair(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("{}={}{}".format, KEY, BLANK, value)


VALUE = st.recursive(
    SCALAR,
    lambda inner: st.one_of(
        st.builds(
            lambda items, gap: f"[{gap}{f'{gap},{gap}'.join(items)}{gap}]", st.lists(inner, max_size=3), LINE_BREAK
        ),
        st.builds(lambda items, gap: f"{{{gap}{f'{gap},'.join(items)}}}", st.lists(pair(inner), max_size=3), BLANK),
    ),
    max_leaves=6,
)
STATEMENT = st.one_of(
    pair(VALUE), st.builds("[{}]".format, KEY), st.builds("[[{}]]".format, KEY), st.just("# a = 1"), st.just("")
)


def valid(statements: list[str]) -> str:
    """A document of these statements, without those that tomllib refuses, such as a key defined twice."""
    text = ""
    for statement in statements:
        try:
            tomllib.loads(text + statement)
        except tomllib.TOMLDecodeError:
            continue
        text += statement + "\n"
    return text


@examples(300)
@given(st.lists(STATEMENT, max_size=8).map(valid))
def test_find_positions_of_any_document_has_exactly_the_paths_of_tomllib(text: str) -> None:
    positions = find_positions(text)
    assert set(positions) == set(paths(tomllib.loads(text)))
    lines = text.split("\n")
    for path, (line, column) in positions.items():
        rest = lines[line - 1][column - 1 :]
        assert rest[:1].strip(), (path, line, column)


@examples(200)
@given(st.lists(st.tuples(BARE, SCALAR), max_size=6, unique_by=lambda pair: pair[0]), st.booleans())
def test_find_positions_of_a_key_points_at_its_text(pairs: list[tuple[str, str]], inline: bool) -> None:
    if inline:
        text = "t = {" + ", ".join(f"{key} = {value}" for key, value in pairs) + "}"
    else:
        text = "[t]\n" + "\n".join(f"  {key} = {value}" for key, value in pairs)
    lines = text.split("\n")
    positions = find_positions(text)
    for key, value in pairs:
        line, column = positions["t", key]
        assert "\n".join(lines[line - 1 :])[column - 1 :].startswith(f"{key} = {value}")


@examples(300)
@given(st.text(max_size=40) | st.text("[]{}=\"'\\\n#., \tab1", max_size=40))
@example("a = [=")
@example("{{[[[")
@example('a."')
def test_find_positions_of_text_that_is_not_toml_ends_within_the_text(text: str) -> None:
    for path, (line, column) in find_positions(text).items():
        assert path
        assert 1 <= line <= text.count("\n") + 1
        assert column >= 1
