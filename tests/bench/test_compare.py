"""Comparing two runs: certain changes for worse or better, and uncertain ones."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, compare
from bench.report import Results, document


def run_of(samples: list[float], better: str = "less") -> dict[str, Any]:
    results = Results()
    results.add_spread("cpu", "reply", "ns", samples, better=better)
    return document({}, results)


def around(middle: float, width: float) -> list[float]:
    draw = random.Random(7)
    return [middle * (1 + width * draw.uniform(-1, 1)) for _ in range(9)]


@pytest.mark.parametrize(
    ("old", "new", "better", "verdict"),
    [
        (around(100, 0.02), around(120, 0.02), "less", "worse"),
        (around(100, 0.02), around(80, 0.02), "less", "better"),
        (around(100, 0.02), around(120, 0.02), "more", "better"),
        (around(100, 0.02), around(80, 0.02), "more", "worse"),
        (around(100, 0.02), around(101, 0.02), "less", ""),
        (around(100, 0.9), around(110, 0.9), "less", ""),
    ],
    ids=["slower", "faster", "more-of-it", "less-of-it", "hardly", "noise"],
)
def test_changes_by_size_and_spread_has_a_verdict_only_if_certain_and_large(
    old: list[float], new: list[float], better: str, verdict: str
) -> None:
    (change,) = compare.changes(run_of(old, better), run_of(new, better))
    assert change.verdict == verdict
    assert change.low <= change.ratio <= change.high


def test_changes_with_few_samples_or_no_direction_are_omitted() -> None:
    few, neutral = run_of([1.0, 2.0]), run_of([1.0, 2.0, 3.0], better="")
    assert compare.changes(few, few) == []
    assert compare.changes(neutral, neutral) == []


def test_changes_of_the_same_files_are_reproducible_and_shown_in_a_table() -> None:
    old, new = run_of(around(100, 0.1)), run_of(around(150, 0.1))
    found = compare.changes(old, new)
    assert found == compare.changes(old, new)
    text = compare.table(found)
    assert "cpu: reply [ns]" in text
    assert text.splitlines()[-1] == "1 figures compared: 1 worse, 0 better, the others uncertain"


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"figures": []})])
def test_load_of_a_file_that_is_no_report_raises(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(BenchError, match=r"r\.json: not a report"):
        compare.load(tmp_path / "r.json")
