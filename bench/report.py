"""The results of a run: figures with their targets and points of charts, as a table and as JSON."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.measure import Spread

Samples = list[float]


@dataclass(frozen=True)
class Figure:
    """One line of the table: a median with its range, in `unit`. A figure without a target is information."""

    scenario: str
    name: str
    unit: str
    value: Spread
    at_most: float | None = None
    at_least: float | None = None
    digits: int = 2
    better: str = "less"  # or "more": the direction that `compare` calls an improvement; "" if there is none

    @property
    def verdict(self) -> str:
        """`pass` or `short`, by the median; empty for information."""
        if self.at_most is None and self.at_least is None:
            return ""
        high = self.at_most is not None and self.value.median > self.at_most
        low = self.at_least is not None and self.value.median < self.at_least
        return "short" if high or low else "pass"

    @property
    def target(self) -> str:
        """The target as a table shows it."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""

    @property
    def spread(self) -> str:
        """Smallest and largest sample; empty if there was only one."""
        low, high, digits = self.value.low, self.value.high, self.digits
        return "" if low == high else f"{low:,.{digits}f} - {high:,.{digits}f}"

    @property
    def key(self) -> str:
        """The figure's name in the samples."""
        return f"{self.scenario}: {self.name} [{self.unit}]"


@dataclass
class Results:
    """What a run collects: figures, points of charts, the samples of both, and notes on what was not measured."""

    figures: list[Figure] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)
    # chart -> series -> [(x, samples)]
    charts: dict[str, dict[str, list[tuple[float, Samples]]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)  # that each scenario took
    tables: list[str] = field(default_factory=list)  # Markdown, as docs/performance.md has them

    def add(self, figure: Figure, samples: Samples | None = None) -> None:
        """Add a figure; with its samples if there was more than one."""
        self.figures.append(figure)
        if samples is not None:
            self.samples[figure.key] = samples

    def add_spread(
        self,
        scenario: str,
        name: str,
        unit: str,
        samples: Samples,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
        digits: int = 2,
        better: str = "less",
    ) -> None:
        """Add the median and range of samples."""
        self.add(Figure(scenario, name, unit, Spread.of(samples), at_most, at_least, digits, better), samples)

    def add_point(self, chart: str, series: str, x: float, samples: Samples) -> None:
        """Add a point to a chart (see `charts.CHARTS`)."""
        self.charts.setdefault(chart, {}).setdefault(series, []).append((x, samples))

    def note(self, text: str) -> None:
        """Add a line below the table, once."""
        if text not in self.notes:
            self.notes.append(text)


def table(results: Results) -> str:
    """The figures as text, one a line, in columns."""
    rows = [("", "figure", "median", "min - max", "unit", "target", "")]
    for figure in results.figures:
        median = f"{figure.value.median:,.{figure.digits}f}"
        rows.append((figure.scenario, figure.name, median, figure.spread, figure.unit, figure.target, figure.verdict))
    notes = [f"note: {note}" for note in results.notes]
    tables = [f"\n{one}\n" for one in results.tables]
    return "\n".join([*columns(rows, {2, 3}), *notes, *durations(results), *tables, summary(results)])


def durations(results: Results) -> list[str]:
    """How long each scenario took, and all of them, in one line; no line if that is not known."""
    each = ", ".join(f"{name} {seconds:.0f}" for name, seconds in results.seconds.items())
    return [f"seconds: {each}; {sum(results.seconds.values()):.0f} in all"] if each else []


def columns(rows: Sequence[Sequence[str]], numbers: Collection[int]) -> list[str]:
    """The lines of a table whose first row is its head. numbers: the columns that are aligned to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def summary(results: Results) -> str:
    """How many targets were met, in one line."""
    verdicts = [figure.verdict for figure in results.figures if figure.verdict]
    short = verdicts.count("short")
    return f"{len(verdicts)} targets: {len(verdicts) - short} pass, {short} fall short"


def markdown(about: dict[str, Any], results: Results) -> str:
    """The figures as Markdown, one table for each scenario."""
    lines = ["# What flashpol costs, beside its peers", "", f"{_machine_in_words(about)}. {summary(results)}.", ""]
    for scenario in dict.fromkeys(figure.scenario for figure in results.figures):
        lines += [
            f"## {scenario}",
            "",
            "| figure | median | min - max | unit | target | |",
            "|---|--:|--:|---|---|---|",
        ]
        for figure in results.figures:
            if figure.scenario == scenario:
                verdict = {"pass": "pass", "short": "**falls short**"}.get(figure.verdict, "")
                median = f"{figure.value.median:,.{figure.digits}f}"
                target = figure.target.replace("<=", "≤").replace(">=", "≥")
                cells = [figure.name, median, figure.spread, figure.unit, target, verdict]
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    for one in results.tables:
        lines += [one, ""]
    lines += [f"- {line}" for line in [*results.notes, *durations(results)]]
    return "\n".join(lines).rstrip() + "\n"


def _machine_in_words(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "cython", "gevent"))
    load = f"load {about['load_average']:.2f}"
    return f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {versions}, {load}"


headline = _machine_in_words


def document(about: dict[str, Any], results: Results) -> dict[str, Any]:
    """All of a run: ``{"machine": …, "figures": […], "samples": {figure: […]}, "charts": …, "notes": […],
    "seconds": {scenario: …}}``."""
    figures = [{**asdict(figure), "verdict": figure.verdict, "key": figure.key} for figure in results.figures]
    charts = {
        name: {one: [{"x": x, "samples": samples} for x, samples in points] for one, points in series.items()}
        for name, series in results.charts.items()
    }
    return {
        "machine": about, "figures": figures, "samples": results.samples, "charts": charts, "notes": results.notes,
        "seconds": results.seconds,
    }  # fmt: skip


def write_json(path: Path, about: dict[str, Any], results: Results) -> None:
    """Write `document` to a file."""
    path.write_text(json.dumps(document(about, results), indent=1) + "\n")
