"""Medians, ratios by round, verdicts, and the table."""

import json
from pathlib import Path

import pytest

from bench import report
from bench.measure import Spread, ratios
from bench.report import Figure, Results


def test_spread_is_median_and_range() -> None:
    assert Spread.of([3.0, 1.0, 9.0]) == Spread(3.0, 1.0, 9.0)


def test_ratios_are_within_a_round() -> None:
    assert ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("at_most", "at_least", "verdict"),
    [(None, None, ""), (1.0, None, "pass"), (0.9, None, "short"), (None, 1.0, "pass"), (None, 1.1, "short")],
)
def test_verdict_depends_on_the_median(at_most: float | None, at_least: float | None, verdict: str) -> None:
    assert Figure("s", "f", "u", Spread(1.0, 0.0, 9.0), at_most, at_least).verdict == verdict


def test_table_and_json_of_one_run_contain_the_same_figures(tmp_path: Path) -> None:
    results = Results(notes=["nothing else"])
    results.add_spread("cpu", "ours / theirs", "ratio", [0.8, 0.9, 0.7], at_most=0.9)
    text = report.table(results)
    assert "ours / theirs" in text
    assert "0.80" in text
    assert "0.70 - 0.90" in text
    assert "<= 0.9" in text
    assert text.splitlines()[-2:] == ["note: nothing else", "1 targets: 1 pass, 0 fall short"]
    report.write_json(tmp_path / "out.json", {"cpu": "any"}, results)
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["figures"][0]["verdict"] == "pass"
    assert document["samples"] == {"cpu: ours / theirs [ratio]": [0.8, 0.9, 0.7]}


def test_markdown_marks_missed_targets_and_counts_them() -> None:
    results = Results()
    results.add_spread("cpu", "slow", "ratio", [2.0], at_most=1.0)
    results.add_spread("cpu", "many", "replies/s", [2000.0], at_least=1000.0, digits=0, better="more")
    about = dict.fromkeys(("cpu", "cores", "kernel", "python", "cython", "gevent"), "any") | {"load_average": 0.5}
    page = report.markdown(about, results)
    assert "| slow | 2.00 |  | ratio | ≤ 1 | **falls short** |" in page
    assert "| many | 2,000 |  | replies/s | ≥ 1000 | pass |" in page
    assert "2 targets: 1 pass, 1 fall short" in page


def test_note_repeated_is_kept_once() -> None:
    results = Results()
    results.note("no node")
    results.note("no node")
    assert results.notes == ["no node"]
