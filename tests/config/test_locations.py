"""The location of a key or table, as text."""

import pytest

from flashpol.config.locations import Path, Source, SourceLocation


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), "s.toml"),
        (("server",), "s.toml:2:1"),
        (("server", "workers"), "s.toml:3:3"),
        (("server", "user"), "s.toml:2:1"),  # absent: the position of its table
        (("listeners", 0), "s.toml"),
    ],
)
def test_source_location_as_text_has_the_position_of_the_nearest_parent(path: Path, text: str) -> None:
    top = SourceLocation(Source("s.toml", "# empty\n[server]\n  workers = 1\n"))
    assert str(top.child(*path)) == text


def test_source_location_child_appends_to_the_path() -> None:
    assert SourceLocation(Source("s.toml"), ("a",)).child("b", 1) == SourceLocation(Source("s.toml"), ("a", "b", 1))
