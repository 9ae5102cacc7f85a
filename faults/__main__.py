"""The command: ``python -m faults [ATTACK …] [--quick] [--markdown FILE] [--list]``.

Exit status: 0 when no good client lost a reply and the account was right, however long that took; 1 otherwise; 2 when
the run could tell nothing.
"""

import argparse
import resource
import sys
from dataclasses import replace
from pathlib import Path

from bench import BenchError
from bench.isolation import isolate
from bench.machine import describe
from faults import report
from faults.families import ATTACKS
from faults.measure import FULL, QUICK, Outcome, measure, measure_bystander
from faults.network import Firewall


def main() -> int:
    """Run the attacks that were asked for and print one table."""
    names = [attack.name for attack in ATTACKS]
    parser = argparse.ArgumentParser(prog="python -m faults", description="What good clients notice of bad days.")
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"all, or some of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="short ones: shows that nothing is lost, tells no times")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--list", action="store_true", help="say what there is")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{attack.name:20}{(attack.run.__doc__ or '').splitlines()[0]}" for attack in ATTACKS))
        return 0
    if unknown := set(arguments.attacks) - set(names):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; one of {', '.join(names)}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    about = report.machine(describe())
    problem = isolate()
    notes = [problem] if problem else []
    outcomes: list[Outcome] = []
    try:
        for attack in ATTACKS:
            if arguments.attacks and attack.name not in arguments.attacks:
                continue
            if attack.own_network and (problem or not Firewall.available()):
                notes.append(f"{attack.name} was left out: it needs a network of our own and nft")
                continue
            outcome = measure(attack, QUICK if arguments.quick else FULL)
            if outcome.ratio > report.RATIO and not arguments.quick:
                outcome = replace(outcome, bystander=measure_bystander(attack, FULL))
            outcomes.append(outcome)
            print("  ".join(report.row(outcomes[-1])), file=sys.stderr)
    except BenchError as error:
        print(f"faults: {error}", file=sys.stderr)
        return 2
    print(report.table(outcomes, notes))
    if arguments.markdown:
        arguments.markdown.write_text(report.markdown(outcomes, notes, about))
    return 1 if any(map(report.lost, outcomes)) else 0


if __name__ == "__main__":
    sys.exit(main())
