"""The figures that the model takes are the published ones."""

import re
from pathlib import Path

import pytest

from bench.scale import figures
from bench.scale.figures import Figure

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "performance.md").read_text()


def section(page: str, heading: str) -> str:
    """What is below `## heading`."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return found[1] if found else ""


def has_number(text: str, number: str) -> bool:
    return bool(re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d|[.,]\d)", text))


@pytest.mark.parametrize("figure", figures.ALL, ids=lambda figure: figure.name)
def test_figure_of_the_model_is_in_its_section_of_the_performance_page(figure: Figure) -> None:
    assert has_number(section(PAGE, figure.section), figure.published), (
        f"docs/performance.md, {figure.section}, has no {figure.published}: write its figure into "
        f"bench/scale/figures.py, then python -m bench.scale --write"
    )


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [("| 7.62 |", "7.62", True), ("| 17.62 |", "7.62", False), ("| 7.624 |", "7.62", False), ("7.62.", "7.62", True),
     ("1,500", "500", False), ("15, 20", "15", True)],
)  # fmt: skip
def test_has_number_finds_whole_numbers_only(text: str, number: str, expected: bool) -> None:
    assert has_number(text, number) == expected
