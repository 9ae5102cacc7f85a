"""The command: ``python -m fuzz [TARGET …] [--seconds S]``.

The time is divided among the targets. Exit status: 0 when no input broke a target; 1 when one did, which is in
``fuzz/found`` then; 2 when the run had no meaningful result.
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
# Begin of a target's name -> what it fuzzes is in this extension.
EXTENSIONS = {"tls_": "_tls", "http_": "_fastpath", "websocket_": "_websocket", "tunnel": "_tunnel"}
MAX_INPUT = 4096  # bytes: a longer policy contains no construct that a shorter one cannot contain
INPUT_SECONDS = 20  # for one input: libFuzzer reports a slower one
MEMORY_MB = 2048
GRACE_SECONDS = 120  # for the start and the end of a run
HEAD = ("target", "seconds", "executions", "per second", "coverage", "corpus", "found")


@dataclass(frozen=True)
class Run:
    """libFuzzer's statistics of one target."""

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
        "max_len": MAX_INPUT,
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
    for begin, extension in EXTENSIONS.items():
        if target.startswith(begin):
            environment |= _with_extension(extension)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # libFuzzer writes to stderr, a Python traceback may go to stdout
            text=True,
            errors="replace",
            timeout=seconds + GRACE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FuzzError(f"{target} did not end in time") from None
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
        _last_number(r"stat::number_of_executed_units:\s*(\d+)", done.stdout),
        _last_number(r"cov: (\d+)", done.stdout),
        len(list(corpus.iterdir())),
        len(new),
    )


def _with_extension(name: str) -> dict[str, str]:
    """The environment of a target of this extension, which is built for it. Raises FuzzError."""
    import atheris

    return {
        "FLASHPOL_FUZZ_EXTENSION": str(build.extension(name)),
        "LD_PRELOAD": f"{atheris.path()}/asan_with_fuzzer.so",
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }


def _last_number(pattern: str, text: str) -> int:
    """The last number that matches, or 0."""
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def table(runs: Sequence[Run]) -> str:
    """The statistics as text, in columns."""
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
    """Run the named targets, or all, and print one table."""
    names = [NATIVE, *TARGETS]
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Fuzz the recognisers, policies, the configuration, TLS, HTTP and WebSocket."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default all; one of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=120, help="total time of all targets, default 120")
    arguments = parser.parse_args()
    selected = arguments.targets or names
    if unknown := set(selected) - set(names):
        parser.error(f"unknown target: {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    runs = []
    try:
        if set(selected) & set(TARGETS) and importlib.util.find_spec("atheris") is None:
            raise FuzzError('atheris is not installed: pip install -e ".[fuzz]"')
        for name in selected:
            runs.append(fuzz(name, max(1.0, arguments.seconds / len(selected))))
            print("  ".join(runs[-1].row), file=sys.stderr, flush=True)
    except FuzzError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    print(table(runs))
    return 1 if any(run.found for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
