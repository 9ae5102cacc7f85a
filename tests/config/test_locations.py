"""Where a part of the configuration was written, as text."""

import pytest

from flashpol.config.locations import Path, Source, SourceLocation


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), "s.toml"),
        (("server",), "s.toml:2:1"),
        (("server", "workers"), "s.toml:3:3"),
        (("server", "user"), "s.toml:2:1"),  # not there: its table is
        (("listeners", 0), "s.toml"),
    ],
)
def test_as_text(path: Path, text: str) -> None:
    top = SourceLocation(Source("s.toml", "# empty\n[server]\n  workers = 1\n"))
    assert str(top.inside(*path)) == text


def test_inside_what_is_inside() -> None:
    assert SourceLocation(Source("s.toml"), ("a",)).inside("b", 1) == SourceLocation(Source("s.toml"), ("a", "b", 1))
