"""Verdicts: lost replies, missed targets; and when the good clients have recovered."""

from dataclasses import replace

import pytest

from faults import report
from faults.attack import Attack
from faults.clients import RequestResult
from faults.measure import RECOVERED_OF, Outcome, recovery

GOOD = Outcome(Attack("storm", print), "much", 1000, {}, 0.001, 0.002, 0.0, 0, 0)


@pytest.mark.parametrize(
    ("change", "lost", "short"),
    [
        ({}, [], []),
        ({"failures": {"reset": 2}}, ["2 lost"], ["2 reset"]),
        ({"failures": {"reset": 2}, "crashed": 2}, [], ["2 reset"]),
        ({"failures": {"reset": 2, "timeout": 1}, "crashed": 2}, ["3 lost"], ["2 reset", "1 timeout"]),
        ({"unaccounted": 1}, ["1 connections not accounted for"], ["1 not accounted for"]),
        ({"p99_during": 0.0021}, [], ["p99 2.1 times that before"]),
        ({"p99_during": 0.0021, "bystander": 0.0021}, [], ["p99 2.1 times that before"]),
        ({"recovery": 1.1}, [], ["recovery 1.1 s"]),
        ({"recovery": None}, [], ["no recovery within the run"]),
    ],
)
def test_report_by_outcome_lists_losses_and_missed_targets(
    change: dict[str, object], lost: list[str], short: list[str]
) -> None:
    outcome = replace(GOOD, **change)  # type: ignore[arg-type]
    assert report.lost(outcome) == lost
    assert report.short(outcome) == short
    assert ("pass" in report.table([outcome])) == (not short)
    assert report.markdown([outcome], ["a note"], "a machine").count("| storm |") == 1


def test_report_with_a_bystander_shows_its_p99() -> None:
    outcome = replace(GOOD, p99_during=0.0021, bystander=0.0011)
    assert "a second server, not attacked: 1.10 ms" in report.table([outcome])


def clients(*spans: tuple[float, str]) -> list[RequestResult]:
    """Spans of 100 clients, one each ms: how long each took, and its outcome."""
    return [
        RequestResult(10.0 + number * 0.1 + i * 0.001, took, outcome)
        for number, (took, outcome) in enumerate(spans)
        for i in range(RECOVERED_OF)
    ]


def test_recovery_is_the_time_until_replies_come_as_before() -> None:
    good, slow, bad = (0.001, "ok"), (0.5, "ok"), (0.001, "reset")
    assert recovery(clients(good, good), 10.0, 0.002) == 0.0
    assert recovery(clients(slow, good, good), 10.0, 0.002) == pytest.approx(0.095, abs=0.002)
    assert recovery(clients(bad, good), 10.0, 0.002) == pytest.approx(0.1)
    assert recovery(clients(good, bad), 10.1, 0.002) is None
    assert recovery(clients(good, slow), 10.1, 0.002) is None
    assert recovery([], 10.0, 0.002) is None
