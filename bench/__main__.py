"""The command.

    python -m bench [all|SCENARIO...] [--rounds N] [--quick] [--out FOLDER] [--json FILE] [--release] [--peers-only]
    python -m bench compare OLD.json NEW.json [--everything] [--fail]   what has changed between two runs
    python -m bench compare NEW.json [--threshold PERCENT] [--everything] [--fail]   CPU beside peers: worse than in the
                                                                                     last release?
    python -m bench charts REPORT.json FOLDER

Exit status: 0 when everything was measured, whether or not targets were met; 1 when `compare --fail` found a figure
that is worse; 2 when a scenario had no meaningful result. That scenario is named, and the others are reported.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import BenchError, charts, compare, isolation, machine, releases, report
from bench.report import Results
from bench.scenarios import (
    access,
    concurrency,
    cpu,
    experiments,
    generator,
    handshakes,
    listeners,
    rate,
    reconnect,
    relay,
    reload,
    rtmpt,
    scrape,
    silent,
    sizes,
    slow_replies,
    startup,
    tls,
    websocket,
    workers,
)
from bench.settings import FULL, Settings

SCENARIOS: dict[str, Callable[[Settings, Results], None]] = {
    "cpu": cpu.run,
    "concurrency": concurrency.run,
    "rate": rate.run,
    "silent": silent.run,
    "slow_replies": slow_replies.run,
    "workers": workers.run,
    "sizes": sizes.run,
    "listeners": listeners.run,
    "reload": reload.run,
    "startup": startup.run,
    "scrape": scrape.run,
    "access": access.run,
    "relay": relay.run,
    "tls": tls.run,
    "handshakes": handshakes.run,
    "websocket": websocket.run,
    "reconnect": reconnect.run,
    "rtmpt": rtmpt.run,
    "generator": generator.run,
}
ON_DEMAND = {"experiments": experiments.run}  # `all` leaves them out, since they are not about flashpol
ROUNDS = 3  # the fewest that have a median: all scenarios are to end within 15 minutes
QUICK_ROUNDS = 1


def main() -> int:
    """Run the command."""
    words = sys.argv[1:]
    try:
        if words[:1] == ["compare"]:
            return _compare(words[1:])
        if words[:1] == ["charts"]:
            return _charts(words[1:])
        return _run(words)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What flashpol costs beside its peers")
    parser.add_argument(
        "scenario", nargs="*", default=["all"], help=f"default all; one of {', '.join([*SCENARIOS, *ON_DEMAND])}"
    )
    parser.add_argument(
        "--rounds", type=int, help=f"number of interleaved rounds, default {ROUNDS}; {FULL} for publication"
    )
    parser.add_argument("--quick", action="store_true", help="only test the suite, in two minutes")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write the report and charts to this folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write figures and samples to this file")
    parser.add_argument("--release", action="store_true",
                        help="keep flashpol's CPU beside peers as that of this version, in bench/released")  # fmt: skip
    parser.add_argument("--peers-only", action="store_true", help="measure only the peers, to judge the machine")
    arguments = parser.parse_args(words)
    rounds: int = (QUICK_ROUNDS if arguments.quick else ROUNDS) if arguments.rounds is None else arguments.rounds
    unknown = [name for name in arguments.scenario if name not in (*SCENARIOS, *ON_DEMAND, "all")]
    if rounds < 1 or unknown:
        parser.error(f"unknown scenario: {', '.join(unknown)}" if unknown else "--rounds must be at least 1")
    if arguments.release and (arguments.quick or arguments.peers_only):
        parser.error("--release takes a whole run")
    allow_many_files()
    results = Results()
    about = machine.describe()
    missing = isolation.isolate()
    if missing:
        results.note(missing)
    settings = Settings.on_this_machine(rounds, arguments.peers_only, arguments.quick)
    if not settings.apart:
        results.note("servers and load share one CPU: there are no figures of them on separate CPUs")
    failed = False
    for name, run in {**SCENARIOS, **ON_DEMAND}.items():
        if name in arguments.scenario or ("all" in arguments.scenario and name in SCENARIOS):
            print(f"{name} …", file=sys.stderr)
            begin = time.monotonic()
            try:
                run(settings, results)
                result = "measured"
            except BenchError as error:
                failed, result = True, "failed"
                results.note(f"{name} failed: {error}")
                print(f"bench: {name}: {error}", file=sys.stderr)
            results.seconds[name] = time.monotonic() - begin
            print(f"{name}: {result} in {results.seconds[name]:.0f} s", file=sys.stderr)
    print(report.headline(about))
    print(report.table(results))
    if arguments.json:
        report.write_json(arguments.json, about, results)
    if arguments.out:
        _write_all(arguments.out, about, results)
    if arguments.release:
        if failed:
            raise BenchError("a scenario failed, so its figures are not kept as those of a release")
        print(f"bench: wrote {releases.write(report.document(about, results))}", file=sys.stderr)
    return 2 if failed else 0


def _write_all(folder: Path, about: dict[str, object], results: Results) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    report.write_json(folder / "report.json", about, results)
    (folder / "report.md").write_text(report.markdown(about, results))
    if charts.available():
        charts.draw(report.document(about, results), folder)
    else:
        print("bench: charts need matplotlib: pip install -e '.[bench]'", file=sys.stderr)


def _compare(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench compare", description="Compare two reports, or one with the release."
    )
    parser.add_argument("old", type=Path, nargs="?", help="default: the last release's, of which only ratios count")
    parser.add_argument("new", type=Path)
    parser.add_argument("--everything", action="store_true", help="also list figures without a certain change")
    parser.add_argument("--fail", action="store_true", help="exit with 1 if a figure is worse")
    parser.add_argument("--threshold", type=float, default=releases.THRESHOLD, metavar="PERCENT",
                        help="of a comparison with the release, default %(default)g")  # fmt: skip
    arguments = parser.parse_args(words)
    new = compare.load(arguments.new)
    if arguments.old:
        found = compare.changes(compare.load(arguments.old), new)
        print(compare.table(found, everything=arguments.everything))
    else:
        released = releases.last()
        if not released:
            print(f"bench: {releases.FOLDER} has no figures of a release to compare with: {releases.WRITE}")
            return 0
        found = releases.changes(compare.load(released), new, arguments.threshold)
        print(releases.table(found, released.stem, arguments.threshold, everything=arguments.everything))
    return int(arguments.fail and any(change.verdict == "worse" for change in found))


def _charts(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench charts", description="Draw the charts of a report.")
    parser.add_argument("report", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args(words)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in charts.draw(compare.load(arguments.report), arguments.folder):
        print(path)
    return 0


def allow_many_files() -> None:
    """Raise the limit for child processes: a worker that holds 15,000 connections exceeds the usual soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
