"""The figures that the model takes are found in the tables of the page that publishes them."""

import pytest

from bench import BenchError
from bench.scale import figures
from bench.scale.figures import Figure
from bench.scale.published import PAGE, Place

MADE_UP = """# Performance

## Replies

| | load apart | same CPU |
|---|--:|---|
| flashpol | **7.62** | 5.06 |
| flashpol, all limits on | 8.00 (7.1 to 9) | |
| nginx | 10.93 | 8.92 |

A client costs the generator 15 µs.

| KB | each | target |
|---|--:|--:|
| flashpol | 1,024.5 | 12 |

## Sessions

| | flashpol |
|---|--:|
| an echo, 64 connections, µs | 18.1 |
| an echo through TLS | 25.3 |
| a session | 1.07 (19.0 to 17.7 KB) |
| empty | |
"""


@pytest.mark.parametrize("figure", figures.ALL, ids=lambda figure: figure.name)
def test_figure_of_the_model_is_a_positive_number_of_the_performance_page(figure: Figure) -> None:
    assert figure.published in PAGE.read_text()
    assert figure.value > 0


def test_every_figure_has_a_place_of_its_own() -> None:
    assert len({figure.place for figure in figures.ALL}) == len(figures.ALL)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place("Replies", "nginx", "same CPU"), "8.92"),
        (Place("Replies", "flashpol", "each"), "1,024.5"),
        (Place("Replies", "flashpol, all limits on", "load apart"), "8.00"),
        (Place("Sessions", "an echo", "flashpol"), "18.1"),
        (Place("Sessions", "an echo through TLS", "flashpol"), "25.3"),
        (Place("Sessions", "a session", "flashpol", r"\(([\d.]+) to"), "19.0"),
        (Place("Replies", pattern=r"generator ([\d.]+) µs"), "15"),
    ],
    ids=["column", "table", "row", "row-until-comma", "longer-row", "pattern", "text"],
)
def test_find_returns_the_figure_as_it_is_written(place: Place, expected: str) -> None:
    assert place.find(MADE_UP) == expected


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (Place("Sessions", "a poll", "flashpol"), "0 cells"),
        (Place("Sessions", "an echo", "nginx"), "0 cells"),
        (Place("Relays", "an echo", "flashpol"), "0 cells"),
        (Place("Replies", "flashpol", "load apart"), "2 cells"),
        (Place("Sessions", "empty", "flashpol"), "no figure"),
        (Place("Replies", pattern="costs ([0-9]+) KB"), "no figure"),
    ],
    ids=["row", "column", "section", "ambiguous", "empty", "text"],
)
def test_find_without_exactly_one_figure_raises_with_its_place(place: Place, reason: str) -> None:
    with pytest.raises(BenchError, match=f"docs/performance.md, section '{place.section}'.*{reason}"):
        place.find(MADE_UP)
