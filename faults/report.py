"""Verdicts, and the table as text and as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import columns
from faults.measure import Outcome

MAX_RATIO = 2.0  # p99 during the attack / p99 before it
MAX_RECOVERY = 1.0  # seconds
HEAD = ("attack", "load", "failures", "p99 before", "during", "ratio", "recovery", "")
NUMBERS = {2, 3, 4, 5, 6}


def machine(about: Mapping[str, Any]) -> str:
    """The machine in one line. about: from `bench.machine`."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "cython", "gevent"))
    return (
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {versions}, "
        f"load {about['load_average']:.1f} before"
    )


def lost(outcome: Outcome) -> list[str]:
    """Lost replies and a wrong account, which fail a run on any machine.

    A connection that is open in a process when it is killed is lost with it; the server counts those as `crashed`.
    """
    failures = sum(outcome.failures.values())
    found = [f"{failures:,} lost"] if failures > outcome.crashed else []
    if outcome.unaccounted:
        found.append(f"{outcome.unaccounted:,} connections not accounted for")
    return found


def short(outcome: Outcome) -> list[str]:
    """The targets that were missed, in words; none if all were met."""
    found = [f"{count:,} {what}" for what, count in outcome.failures.items()]
    if outcome.unaccounted:
        found.append(f"{outcome.unaccounted:,} not accounted for")
    if outcome.ratio > MAX_RATIO:
        found.append(f"p99 {outcome.ratio:.1f} times that before")
    if outcome.recovery is None:
        found.append("no recovery within the run")
    elif outcome.recovery > MAX_RECOVERY:
        found.append(f"recovery {outcome.recovery:.1f} s")
    return found


def row(outcome: Outcome) -> tuple[str, ...]:
    problems = short(outcome)
    verdict = f"short: {', '.join(problems)}" if problems else "pass"
    if outcome.bystander:
        verdict += f"; a second server, not attacked: {outcome.bystander * 1e3:.2f} ms"
    return (
        outcome.attack.name,
        outcome.load,
        f"{sum(outcome.failures.values()):,} of {outcome.requests:,}",
        f"{outcome.p99_before * 1e3:.2f} ms",
        f"{outcome.p99_during * 1e3:.2f} ms",
        f"{outcome.ratio:.1f}",
        "never" if outcome.recovery is None else f"{outcome.recovery:.2f} s",
        verdict,
    )


def table(outcomes: Sequence[Outcome], notes: Sequence[str] = ()) -> str:
    """The table as text, one attack a line."""
    lines = columns([HEAD, *map(row, outcomes)], NUMBERS)
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def markdown(outcomes: Sequence[Outcome], notes: Sequence[str], about: str) -> str:
    """The table for docs/faults.md."""
    lines = [f"Measured with `make faults`: {about}.", "", f"| {' | '.join(HEAD[:-1])} | verdict |"]
    lines.append("|" + "".join("---:|" if i in NUMBERS else "---|" for i in range(len(HEAD))))
    lines += [f"| {' | '.join(row(outcome))} |" for outcome in outcomes]
    return "\n".join([*lines, *(["", *notes] if notes else [])]) + "\n"
