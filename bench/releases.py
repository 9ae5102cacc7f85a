"""CPU per answer beside peers as releases had it: `bench/released/VERSION.json`, reports with these ratios alone.

Machines differ in what an answer costs, and less in what it costs beside a peer in the same rounds. So only ratios are
kept, and `python -m bench compare REPORT.json` looks for worse ones.
"""

import json
from pathlib import Path
from typing import Any

from bench import BenchError, compare
from bench.compare import MIN_SAMPLES, Change
from bench.servers import OURS
from flashpol.version import VERSION

FOLDER = Path(__file__).with_name("released")
THRESHOLD = 10.0  # per cent: runs of one build on two machines differ by less in most ratios
WRITE = "python -m bench cpu --rounds 9 --release"


def is_cpu_ratio(figure: dict[str, Any]) -> bool:
    """Whether it is flashpol's CPU of something divided by a peer's."""
    beside = figure["unit"] == "ratio" and figure["better"] == "less" and " / " in figure["name"]
    of_cpu = figure["scenario"].startswith("cpu,") or "CPU" in figure["name"]
    return bool(beside and of_cpu and figure["name"].startswith(OURS))


def kept(document: dict[str, Any]) -> dict[str, Any]:
    """A report with only the ratios of CPU that have enough samples. Raises BenchError if there are none."""
    samples = document["samples"]
    figures = [
        figure
        for figure in document["figures"]
        if is_cpu_ratio(figure) and len(samples.get(figure["key"], [])) >= MIN_SAMPLES
    ]
    if not figures:
        raise BenchError(f"no ratio of CPU has {MIN_SAMPLES} rounds, so there is nothing to keep: {WRITE}")
    rounded = {figure["key"]: [float(f"{one:.4g}") for one in samples[figure["key"]]] for figure in figures}
    return {
        "version": VERSION, "machine": document["machine"], "figures": figures, "samples": rounded, "charts": {},
        "notes": document["notes"],
    }  # fmt: skip


def write(document: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Keep the ratios of a report as those of this version. Returns the file."""
    found = kept(document)
    folder.mkdir(exist_ok=True)
    path = folder / f"{VERSION}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def last(folder: Path = FOLDER) -> Path | None:
    """The file of the highest version, if there is any."""
    return max(folder.glob("*.json"), key=_version, default=None)


def _version(path: Path) -> tuple[int, ...]:
    try:
        return tuple(map(int, path.stem.split(".")))
    except ValueError:
        raise BenchError(f"{path}: its name is not a version, such as {VERSION}.json") from None


def changes(old: dict[str, Any], new: dict[str, Any], threshold: float = THRESHOLD) -> list[Change]:
    """The ratios of CPU that both have. One is worse if the whole interval lies above the threshold, in per cent."""
    ratios = {**new, "figures": [figure for figure in new["figures"] if is_cpu_ratio(figure)]}
    return compare.changes(old, ratios, margin=threshold / 100)


def table(found: list[Change], version: str, threshold: float = THRESHOLD, *, everything: bool = False) -> str:
    """The regressions, one a line, and a line with their number; everything: all ratios."""
    worse = [change for change in found if change.verdict == "worse"]
    shown = found if everything else worse
    end = f"{len(found)} ratios of CPU compared with {version}: {len(worse)} worse by more than {threshold:g} %"
    return "\n".join([*(compare.lines(shown, version, "now") if shown else []), end])
