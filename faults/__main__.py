"""The command: ``python -m faults [ATTACK …] [--quick] [--tries N] [--markdown FILE [--before FILE]] [--list]``.

Exit status: 0 when no good client lost a reply and the server's account was right, however long replies took; 1
otherwise; 2 when the run had no meaningful result.
"""

import argparse
import resource
import sys
from pathlib import Path

from bench import BenchError
from bench.isolation import isolate
from bench.machine import describe
from faults import report
from faults.attacks import ATTACKS
from faults.build import has_tls
from faults.measure import FULL, QUICK, Outcome, measure
from faults.network import Firewall


def main() -> int:
    """Run the named attacks, or all, and print one table."""
    names = [attack.name for attack in ATTACKS]
    parser = argparse.ArgumentParser(
        prog="python -m faults", description="Measure what good clients notice of attacks and accidents."
    )
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"default all; one of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="short attacks: check for lost replies, judge no times")
    parser.add_argument(
        "--tries",
        type=int,
        default=1,
        metavar="N",
        help="make an attack that fails up to N times: a busy machine is late",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the table to this file")
    parser.add_argument("--before", type=Path, metavar="FILE", help="an earlier such table, for one more column")
    parser.add_argument("--list", action="store_true", help="list the attacks and exit")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{attack.name:23}{(attack.run.__doc__ or '').splitlines()[0]}" for attack in ATTACKS))
        return 0
    if unknown := set(arguments.attacks) - set(names):
        parser.error(f"unknown attack: {', '.join(sorted(unknown))}; known are {', '.join(names)}")
    before = report.earlier(arguments.before.read_text()) if arguments.before else None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    about = report.machine(describe())
    problem = isolate()
    notes = [problem] if problem else []
    outcomes: list[Outcome] = []
    try:
        for attack in ATTACKS:
            if attack.name not in arguments.attacks if arguments.attacks else arguments.quick and not attack.quick:
                continue
            if attack.own_network and (problem or not Firewall.available()):
                notes.append(f"{attack.name} was skipped: it needs a network namespace of its own, and nft")
                continue
            if attack.tls and not has_tls():
                notes.append(f"{attack.name} was skipped: it needs a build with TLS (libssl-dev)")
                continue
            tries = 0
            while True:
                tries += 1
                outcome = measure(attack, QUICK if arguments.quick else FULL, bystander=not arguments.quick)
                for row in report.rows(outcome):
                    print("  ".join(row), file=sys.stderr)
                if tries >= arguments.tries or not report.lost(outcome):
                    break
            if tries > 1:
                notes.append(f"{attack.name}: the result of try {tries}")
            outcomes.append(outcome)
    except BenchError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    print(report.table(outcomes, notes))
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(outcomes, notes, about, before))
    return 1 if any(map(report.lost, outcomes)) else 0


if __name__ == "__main__":
    sys.exit(main())
