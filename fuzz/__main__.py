"""The command: ``python -m fuzz [TARGET …] [--seconds S]``.

The time is divided among the targets. Exit status: 0 when nothing broke; 1 when an input broke something, which is in
``fuzz/found`` then; 2 when the run could tell nothing.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz import FuzzError
from fuzz.native import build
from fuzz.targets import SEEDS, TARGETS

HERE = Path(__file__).parent
ROOT = HERE.parent
CORPUS = ROOT / "build" / "fuzz" / "corpus"
NATIVE = "recognise"
LONGEST = 4096  # bytes of an input: a policy that is longer has nothing in it that a shorter one has not
INPUT_SECONDS = 20  # for one input: more is a case of its own
MEMORY_MB = 2048
GRACE_SECONDS = 120  # for the start and the end of a run
HEAD = ("target", "seconds", "executions", "per second", "coverage", "corpus", "found")


@dataclass(frozen=True)
class Run:
    """What libFuzzer said of one target."""

    target: str
    seconds: float
    executions: int
    coverage: int
    corpus: int
    found: int

    @property
    def row(self) -> tuple[str, ...]:
        rate = self.executions / self.seconds
        numbers = (self.executions, rate, self.coverage, self.corpus, self.found)
        return (self.target, f"{self.seconds:.0f}", *(f"{number:,.0f}" for number in numbers))


def fuzz(target: str, seconds: float) -> Run:
    """Run one target. Raises FuzzError."""
    corpus, found = CORPUS / target, HERE / "found" / target
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    before = set(found.iterdir())
    seeds: tuple[Path, ...]
    if target == NATIVE:
        command, seeds = [str(build.recogniser())], (SEEDS / NATIVE,)
    else:
        command, seeds = [sys.executable, "-m", "fuzz.python", target], TARGETS[target][1]
    options = {
        "max_total_time": int(seconds),
        "max_len": LONGEST,
        "timeout": INPUT_SECONDS,
        "rss_limit_mb": MEMORY_MB,
        "artifact_prefix": f"{found}/",
        "print_final_stats": 1,
    }
    words = HERE / "seeds" / f"{target}.dict"
    if words.exists():
        options["dict"] = str(words)
    command += [f"-{name}={value}" for name, value in options.items()]
    command += [str(folder) for folder in (corpus, *seeds, found)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # libFuzzer writes to the one, Python's traceback goes to the other
            text=True,
            errors="replace",
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FuzzError(f"{target}: it did not end in time") from None
    new = set(found.iterdir()) - before
    if done.returncode and not new:
        raise FuzzError(f"{target} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    if new:
        print(f"{target}:\n{done.stdout[-4000:]}", file=sys.stderr)
    if not any(found.iterdir()):
        found.rmdir()
    return Run(
        target,
        seconds,
        _said(r"stat::number_of_executed_units:\s*(\d+)", done.stdout),
        _said(r"cov: (\d+)", done.stdout),
        len(list(corpus.iterdir())),
        len(new),
    )


def _said(pattern: str, text: str) -> int:
    """The last number that matches; 0 if none does."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def table(runs: Sequence[Run]) -> str:
    """In columns."""
    rows = [HEAD, *(run.row for run in runs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def main() -> int:
    """Run the targets that were asked for and print one table."""
    names = [NATIVE, *TARGETS]
    parser = argparse.ArgumentParser(prog="python -m fuzz", description="Inputs that nobody thought of.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all, or some of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=120, help="for all targets together, default 120")
    arguments = parser.parse_args()
    chosen = arguments.targets or names
    if unknown := set(chosen) - set(names):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; one of {', '.join(names)}")
    runs = []
    try:
        if set(chosen) & set(TARGETS) and importlib.util.find_spec("atheris") is None:
            raise FuzzError('atheris is not installed: pip install -e ".[fuzz]"')
        for name in chosen:
            runs.append(fuzz(name, max(1.0, arguments.seconds / len(chosen))))
            print("  ".join(runs[-1].row), file=sys.stderr, flush=True)
    except FuzzError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    print(table(runs))
    return 1 if any(run.found for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
