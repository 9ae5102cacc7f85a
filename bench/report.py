"""Figures with their targets, the table at the end of a run, and the JSON for later comparison."""

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import servers
from bench.measure import Spread


@dataclass(frozen=True)
class Figure:
    """One line of the table: a median with its range, in `unit`. Without a target it is information."""

    scenario: str
    name: str
    unit: str
    value: Spread
    at_most: float | None = None
    at_least: float | None = None
    digits: int = 2

    @property
    def verdict(self) -> str:
        """`pass`, `short`, or nothing for information. The median decides."""
        if self.at_most is None and self.at_least is None:
            return ""
        high = self.at_most is not None and self.value.median > self.at_most
        low = self.at_least is not None and self.value.median < self.at_least
        return "short" if high or low else "pass"


@dataclass
class Results:
    """What a run collects: figures, the samples they were made of, and what could not be measured."""

    figures: list[Figure] = field(default_factory=list)
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, figure: Figure, samples: list[float] | None = None) -> None:
        """Add a figure, with the samples behind it when there was more than one."""
        self.figures.append(figure)
        if samples is not None:
            self.samples[f"{figure.scenario}: {figure.name} [{figure.unit}]"] = samples

    def add_spread(
        self,
        scenario: str,
        name: str,
        unit: str,
        samples: list[float],
        *,
        at_most: float | None = None,
        digits: int = 2,
    ) -> None:
        """Add the median and range of samples."""
        self.add(Figure(scenario, name, unit, Spread.of(samples), at_most, digits=digits), samples)


def table(results: Results) -> str:
    """The figures as text, one a line, in columns."""
    rows = [("", "figure", "median", "min - max", "unit", "target", "")]
    for figure in results.figures:
        value, digits = figure.value, figure.digits
        target = f"<= {figure.at_most:g}" if figure.at_most is not None else ""
        target = f">= {figure.at_least:g}" if figure.at_least is not None else target
        spread = "" if value.low == value.high else f"{value.low:,.{digits}f} - {value.high:,.{digits}f}"
        rows.append(
            (figure.scenario, figure.name, f"{value.median:,.{digits}f}", spread, figure.unit, target, figure.verdict)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = {2, 3}
    lines = [
        "  ".join(
            cell.rjust(width) if i in numeric else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, *(f"note: {note}" for note in results.notes)])


def machine() -> dict[str, Any]:
    """What the figures depend on: hardware, kernel, versions, date, and how busy the machine was already."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cython": _version("cython"),
        "gevent": _version("gevent"),
        "compiler": _first_line([os.environ.get("CC", "cc"), "--version"]),
        "nginx": _first_line([servers.nginx_program() or "nginx", "-v"]),
        "load_average": os.getloadavg()[0],
    }


def headline(about: dict[str, Any]) -> str:
    """The machine in one line."""
    versions = ", ".join(f"{name} {about[name]}" for name in ("python", "cython", "gevent"))
    load = f"load {about['load_average']:.2f}"
    return f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, {versions}, {load}"


def write_json(path: Path, about: dict[str, Any], results: Results) -> None:
    """Everything: ``{"machine": …, "figures": […], "samples": {figure: […]}, "notes": […]}``."""
    figures = [{**asdict(figure), "verdict": figure.verdict} for figure in results.figures]
    document = {"machine": about, "figures": figures, "samples": results.samples, "notes": results.notes}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str | None:
    try:
        said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        return None
    return (said.stdout or said.stderr).splitlines()[0]
