"""The command: ``python -m bench [all|cpu|silent|latency|startup|access] [--rounds N] [--json FILE] [--peers-only]``.

Exit status: 0 when everything could be measured, met or not; 2 when a figure would not have meant anything.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import BenchError, report
from bench.report import Results
from bench.scenarios import access, cpu, latency, silent, startup
from bench.settings import Settings

SCENARIOS: dict[str, Callable[[Settings, Results], None]] = {
    "cpu": cpu.run,
    "silent": silent.run,
    "latency": latency.run,
    "startup": startup.run,
    "access": access.run,
}
ROUNDS = 9  # odd, so that the median is a measurement; enough that one or two disturbed rounds do not move it


def main() -> int:
    """Run what was asked for and print one table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What flashpol costs, beside its peers.")
    parser.add_argument("scenario", nargs="?", default="all", choices=["all", *SCENARIOS])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"interleaved rounds, default {ROUNDS}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and samples there too")
    parser.add_argument("--peers-only", action="store_true", help="without flashpol: judge the machine")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")
    _allow_many_files()
    settings = Settings.on_this_machine(arguments.rounds, arguments.peers_only)
    about, results = report.machine(), Results()
    if settings.server_cpu == settings.load_cpu:
        results.notes.append("one CPU for servers and load: no figures of the two apart")
    try:
        for name, run in SCENARIOS.items():
            if arguments.scenario in ("all", name):
                begin = time.monotonic()
                run(settings, results)
                print(f"{name}: measured in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    print(report.headline(about))
    print(report.table(results))
    if arguments.json:
        report.write_json(arguments.json, about, results)
    return 0


def _allow_many_files() -> None:
    """For the children: a worker that holds 15,000 connections needs more than the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
