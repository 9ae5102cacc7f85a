"""Verdicts: lost replies, missed targets; and when the good clients have recovered."""

from dataclasses import replace

import pytest

from faults import report
from faults.attack import Attack
from faults.clients import RequestResult
from faults.measure import RECOVERED_OF, Outcome, PlaceOutcome, judge, recovery

PLACE = PlaceOutcome("same listener", 1000, 900, {}, 0.001, 0.002, 0.0)
GOOD = Outcome(Attack("storm", print), "much", (PLACE, replace(PLACE, place="another listener")), 0, 0)


def changed(place: dict[str, object], outcome: dict[str, object]) -> Outcome:
    """`GOOD` with changes to its second place and to itself."""
    first, second = GOOD.places
    return replace(GOOD, places=(first, replace(second, **place)), **outcome)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("place", "outcome", "lost", "short"),
    [
        ({}, {}, [], []),
        ({"failures": {"game reset": 2}}, {}, ["2 lost"], ["2 game reset"]),
        ({"failures": {"game reset": 2}}, {"crashed": 2}, [], ["2 game reset"]),
        ({"failures": {"reset": 2, "timeout": 1}}, {"crashed": 2}, ["3 lost"], ["2 reset", "1 timeout"]),
        ({"p99_during": 0.0021}, {}, [], ["p99 2.1 times that before"]),
        ({"p99_during": 0.0021}, {"bystander": PLACE}, [], ["p99 2.1 times that before"]),
        ({"p99_during": 0.0029}, {"attack": Attack("storm", print, max_ratio=3.0)}, [], []),
        ({"recovery": 1.1}, {}, [], ["recovery 1.1 s"]),
        ({"recovery": None}, {}, [], ["no recovery within the run"]),
    ],
)
def test_report_by_place_lists_losses_and_missed_targets(
    place: dict[str, object], outcome: dict[str, object], lost: list[str], short: list[str]
) -> None:
    result = changed(place, outcome)
    assert report.lost(result) == lost
    assert [report.short(result, each) for each in result.places] == [[], short]
    assert report.table([result]).count("pass") == (1 if short else 2)
    assert report.markdown([result], ["a note"], "a machine").count("| storm |") == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"unaccounted": 1}, "1 connections not accounted for"),
        ({"missed": ("5 sessions refused",)}, "5 sessions refused"),
    ],
)
def test_report_of_the_whole_server_is_in_the_first_row_and_fails_the_run(
    change: dict[str, object], words: str
) -> None:
    outcome = changed({}, change)
    assert report.lost(outcome) == [words]
    first, second = report.rows(outcome)
    assert words.replace("connections ", "") in first[-1]
    assert second[-1] == "pass"


def test_report_with_a_bystander_shows_its_ratio() -> None:
    outcome = changed({"p99_during": 0.0021}, {"bystander": replace(PLACE, p99_during=0.0011)})
    assert "a second server, not attacked: 1.1 times" in report.table([outcome])


def test_report_without_clients_that_wait_only_for_the_server_shows_no_time() -> None:
    [_, row] = report.rows(changed({"p99_before": 0.0, "p99_during": 0.0}, {}))
    assert row[3:6] == ("-", "-", "-")


def test_markdown_with_an_earlier_table_has_its_figures_beside() -> None:
    earlier = report.earlier(report.markdown([changed({"failures": {"reset": 7}}, {})], [], "a machine"))
    assert earlier == {
        ("storm", "same listener"): "0 of 1,000; 2.0; 0.00 s",
        ("storm", "another listener"): "7 of 1,000; 2.0; 0.00 s",
    }
    text = report.markdown([GOOD], [], "a machine", earlier)
    assert "| storm | another listener | 7 of 1,000; 2.0; 0.00 s | 0 of 1,000 |" in text
    assert report.markdown([GOOD], [], "a machine", {}).count("not measured") == 2
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


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


def test_recovery_needs_only_replies_of_those_that_wait_for_something_else() -> None:
    after = [RequestResult(10.0 + n * 0.01, 1.0, "ok", prompt=False) for n in range(10)]
    assert recovery(after, 10.0, 0.002, of=10) == 0.0
    assert recovery([replace(each, outcome="short") for each in after], 10.0, 0.002, of=10) is None


def test_judge_counts_by_kind_and_takes_as_calm_what_ended_before_the_attack() -> None:
    results = [RequestResult(n * 0.01, 0.001, "ok") for n in range(300)]
    results[95] = replace(results[95], seconds=2.0, outcome="timeout")  # it began before the attack, and felt it
    results[150] = replace(results[150], outcome="reset", kind="game")
    results[20] = replace(results[20], seconds=0.9, prompt=False)  # its time says nothing
    outcome = judge("same listener", results, 1.0, 2.0, 1.0)
    assert outcome.failures == {"policy timeout": 1, "game reset": 1}
    assert (outcome.requests, outcome.lost) == (300, 2)
    assert outcome.p99_before == pytest.approx(0.001)
    assert outcome.p99_during == pytest.approx(0.001)
    assert outcome.recovery == 0.0
    assert outcome.calm == 98  # of 100, one is late and one fell into the attack
