"""Verdicts: what counts as lost, what as short of the targets; and when the good clients have recovered."""

from dataclasses import replace

import pytest

from faults import report
from faults.clients import Asked
from faults.measure import RECOVERED_OF, Outcome, recovery
from faults.scene import Attack

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
        ({"recovery": None}, [], ["not as before while we looked"]),
    ],
)
def test_verdicts(change: dict[str, object], lost: list[str], short: list[str]) -> None:
    outcome = replace(GOOD, **change)  # type: ignore[arg-type]
    assert report.lost(outcome) == lost
    assert report.short(outcome) == short
    assert ("pass" in report.table([outcome])) == (not short)
    assert report.markdown([outcome], ["a note"], "a machine").count("| storm |") == 1


def test_what_the_machine_does_to_a_server_that_nobody_attacks_is_told() -> None:
    assert "a server that nobody attacks: 1.10 ms" in report.table([replace(GOOD, p99_during=0.0021, bystander=0.0011)])


def clients(*spans: tuple[float, str]) -> list[Asked]:
    """Spans of 100 clients, one a ms: how long each took and what became of them."""
    return [
        Asked(10.0 + number * 0.1 + i * 0.001, took, outcome)
        for number, (took, outcome) in enumerate(spans)
        for i in range(RECOVERED_OF)
    ]


def test_recovery() -> None:
    well, slow, bad = (0.001, "ok"), (0.5, "ok"), (0.001, "reset")
    assert recovery(clients(well, well), 10.0, 0.002) == 0.0
    assert recovery(clients(slow, well, well), 10.0, 0.002) == pytest.approx(0.095, abs=0.002)
    assert recovery(clients(bad, well), 10.0, 0.002) == pytest.approx(0.1)
    assert recovery(clients(well, bad), 10.1, 0.002) is None
    assert recovery(clients(well, slow), 10.1, 0.002) is None
    assert recovery([], 10.0, 0.002) is None
