"""How a finding shows its place: a caret where a terminal has it, in as many columns as there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lint import flash, grant, thorough

from flashpol.policy import lint
from flashpol.policy.findings import pointed_out


@pytest.mark.parametrize(
    ("before", "columns"),
    [
        ("", 0),
        ("\t\t", 2),  # shown as one blank each
        ("<!-- \u65e5\u672c\u8a9e -->", 15),
        ("<!-- e\u0301 -->", 10),
        ("<!-- \uff21 -->", 11),
        ("<!-- \u200d -->", 10),  # unprintable: shown as a dot
    ],
)
def test_pointed_out_caret_is_under_the_place_on_a_terminal(before: str, columns: int) -> None:
    data = flash(before + grant(ports="90-80"))
    [finding] = [finding for finding in lint(data) if finding.code == "FP409"]
    assert finding.excerpt().split("\n")[1] == " " * (columns + len('<allow-access-from domain="*" to-ports="')) + "^"


@given(st.text("ab\u65e5\u0301", max_size=60), st.integers(0, 60), st.integers(20, 80))
@thorough
def test_pointed_out_fits_the_columns_and_keeps_the_place(text: str, at: int, columns: int) -> None:
    at = min(at, len(text))
    source, caret = pointed_out(text[:at] + "!" + text[at:], at, columns)
    cells = [0 if c == "\u0301" else 2 if c == "\u65e5" else 1 for c in source]
    assert sum(cells) <= columns
    assert sum(cells[: source.index("!")]) == len(caret) - 1
