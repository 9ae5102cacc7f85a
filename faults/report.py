"""Verdicts, and the table as text and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import columns
from faults.measure import Outcome

RATIO = 2.0  # of the p99 during an attack to the one before it, at most
RECOVERY = 1.0  # seconds
HEAD = ("attack", "load", "failures", "p99 before", "during", "ratio", "recovery", "")
NUMBERS = {2, 3, 4, 5, 6}


def machine(about: Mapping[str, Any]) -> str:
    """What the figures depend on, in one line; as `bench.machine` describes it."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "cython", "gevent"))
    return (
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {versions}, "
        f"load {about['load_average']:.1f} before"
    )


def lost(outcome: Outcome) -> list[str]:
    """What no good client may ever notice, however busy the machine: replies that were lost, a wrong account.

    Whoever is inside a process that is killed is lost with it; the server knows how many those were at most.
    """
    failures = sum(outcome.failures.values())
    found = [f"{failures:,} lost"] if failures > outcome.crashed else []
    if outcome.unaccounted:
        found.append(f"{outcome.unaccounted:,} connections not accounted for")
    return found


def short(outcome: Outcome) -> list[str]:
    """In which points it falls short of the targets; none if it reaches all."""
    found = [f"{count:,} {what}" for what, count in outcome.failures.items()]
    if outcome.unaccounted:
        found.append(f"{outcome.unaccounted:,} not accounted for")
    if outcome.ratio > RATIO:
        found.append(f"p99 {outcome.ratio:.1f} times that before")
    if outcome.recovery is None:
        found.append("not as before while we looked")
    elif outcome.recovery > RECOVERY:
        found.append(f"recovery {outcome.recovery:.1f} s")
    return found


def row(outcome: Outcome) -> tuple[str, ...]:
    problems = short(outcome)
    verdict = f"short: {', '.join(problems)}" if problems else "pass"
    if outcome.bystander:
        verdict += f"; a server that nobody attacks: {outcome.bystander * 1e3:.2f} ms"
    return (
        outcome.attack.name,
        outcome.load,
        f"{sum(outcome.failures.values()):,} of {outcome.asked:,}",
        f"{outcome.p99_before * 1e3:.2f} ms",
        f"{outcome.p99_during * 1e3:.2f} ms",
        f"{outcome.ratio:.1f}",
        "never" if outcome.recovery is None else f"{outcome.recovery:.2f} s",
        verdict,
    )


def table(outcomes: Sequence[Outcome], notes: Sequence[str] = ()) -> str:
    """In columns, a line an attack."""
    lines = columns([HEAD, *map(row, outcomes)], NUMBERS)
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def markdown(outcomes: Sequence[Outcome], notes: Sequence[str], about: str) -> str:
    """The same for docs/faults.md."""
    lines = [f"Measured with `make faults`: {about}.", "", f"| {' | '.join(HEAD[:-1])} | verdict |"]
    lines.append("|" + "".join("---:|" if i in NUMBERS else "---|" for i in range(len(HEAD))))
    lines += [f"| {' | '.join(row(outcome))} |" for outcome in outcomes]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
