"""Verdicts, and the table as text and as Markdown: a row for each attack and place."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.report import columns
from faults.measure import Outcome, PlaceOutcome

MAX_RECOVERY = 1.0  # seconds
HEAD = ("attack", "good clients", "lost", "p99 before", "during", "ratio", "recovery", "verdict")
NUMBERS = {2, 3, 4, 5, 6}
EARLIER = "before: lost, ratio, recovery"
Key = tuple[str, str]  # an attack and a place


def machine(about: Mapping[str, Any]) -> str:
    """The machine in one line. about: from `bench.machine`."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "cython", "gevent"))
    return (
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {versions}, "
        f"load {about['load_average']:.1f} before"
    )


def lost(outcome: Outcome) -> list[str]:
    """Lost replies, a wrong account and requirements that were not met, which fail a run on any machine.

    A connection that is open in a process when it is killed is lost with it; the server counts those as `crashed`.
    """
    found = [f"{outcome.lost:,} lost"] if outcome.lost > outcome.crashed else []
    if outcome.unaccounted:
        found.append(f"{outcome.unaccounted:,} connections not accounted for")
    return [*found, *outcome.missed]


def short(outcome: Outcome, place: PlaceOutcome) -> list[str]:
    """The targets that were missed at a place, in words; none if all were met."""
    found = [f"{count:,} {what}" for what, count in place.failures.items()]
    if place.ratio > outcome.attack.max_ratio:
        found.append(f"p99 {place.ratio:.1f} times that before")
    if place.recovery is None:
        found.append("no recovery within the run")
    elif place.recovery > MAX_RECOVERY:
        found.append(f"recovery {place.recovery:.1f} s")
    return found


def short_of_all(outcome: Outcome) -> list[str]:
    """The targets of the whole server that were missed."""
    return [*([f"{outcome.unaccounted:,} not accounted for"] if outcome.unaccounted else []), *outcome.missed]


def rows(outcome: Outcome) -> Iterator[tuple[str, ...]]:
    """A row for each place; the first has what concerns all of the server."""
    for place in outcome.places:
        problems = [*short(outcome, place), *(short_of_all(outcome) if place is outcome.places[0] else [])]
        verdict = f"short: {', '.join(problems)}" if problems else "pass"
        if outcome.bystander and place.ratio > outcome.attack.max_ratio:
            verdict += f"; a second server, not attacked: {outcome.bystander.ratio:.1f} times"
        yield (
            outcome.attack.name,
            place.place,
            f"{place.lost:,} of {place.requests:,}",
            _milliseconds(place.p99_before),
            _milliseconds(place.p99_during),
            f"{place.ratio:.1f}" if place.ratio else "-",
            "never" if place.recovery is None else f"{place.recovery:.2f} s",
            verdict,
        )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds else "-"


def loads(outcomes: Sequence[Outcome]) -> list[str]:
    """What each attack did, a line each."""
    return [f"{outcome.attack.name}: {outcome.load}" for outcome in outcomes]


def table(outcomes: Sequence[Outcome], notes: Sequence[str] = ()) -> str:
    """The tables as text: one row a line, and one load a line."""
    lines = columns([HEAD, *(row for outcome in outcomes for row in rows(outcome))], NUMBERS)
    return "\n".join([*lines, "", *loads(outcomes), *(f"note: {note}" for note in notes)])


def earlier(document: str) -> dict[Key, str]:
    """Losses, ratio and recovery by attack and place, from a table that `markdown` wrote."""
    found: dict[Key, str] = {}
    for line in document.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) == len(HEAD) and cells[0] != HEAD[0] and not cells[0].startswith("-"):
            found[cells[0], cells[1]] = f"{cells[2]}; {cells[5]}; {cells[6]}"
    return found


def markdown(
    outcomes: Sequence[Outcome], notes: Sequence[str], about: str, before: Mapping[Key, str] | None = None
) -> str:
    """The tables for docs/faults.md. before: from `earlier`, for one more column."""
    head, numbers = list(HEAD), set(NUMBERS)
    if before is not None:
        head.insert(2, EARLIER)
        numbers = {number if number < 2 else number + 1 for number in NUMBERS}
    lines = [f"Measured with `make faults`: {about}.", "", f"| {' | '.join(head)} |"]
    lines.append("|" + "".join("---:|" if i in numbers else "---|" for i in range(len(head))))
    for outcome in outcomes:
        for row in map(list, rows(outcome)):
            if before is not None:
                row.insert(2, before.get((row[0], row[1]), "not measured"))
            lines.append(f"| {' | '.join(row)} |")
    lines += ["", *(f"- {load}" for load in loads(outcomes))]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
