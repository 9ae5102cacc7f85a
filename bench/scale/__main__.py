"""The command.

    python -m bench.scale [--seed N] [--write]                      print the tables of docs/scale.md; --write: into it
    python -m bench.scale measure [--tiny] [--rounds N] [--write]   model beside measurement on this machine; --write:
                                                                    keep it for docs/scale.md
Exit status: 0, or 2 when there was no meaningful result.
"""

import argparse
import sys
from dataclasses import replace

from bench import BenchError
from bench.__main__ import allow_many_files
from bench.scale import comparison, host_settings, measured, tables


def main() -> int:
    """Run the command."""
    words = sys.argv[1:]
    try:
        return _measure(words[1:]) if words[:1] == ["measure"] else _print(words)
    except BenchError as error:
        print(f"bench.scale: {error}", file=sys.stderr)
        return 2


def _print(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description="What it costs to hold millions")
    parser.add_argument("--seed", type=int, default=tables.SEED, help=f"of the simulation, default {tables.SEED}")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/scale.md")
    arguments = parser.parse_args(words)
    made = tables.blocks(arguments.seed)
    if arguments.write:
        tables.PAGE.write_text(tables.filled(tables.PAGE.read_text(), made))
        return 0
    for name, make in made.items():
        print(f"{name}\n\n{make()}")
    return 0


def _measure(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale measure", description="Model beside measurement")
    parser.add_argument("--tiny", action="store_true", help="only test the command: the figures mean nothing")
    parser.add_argument("--rounds", type=int, help=f"default {measured.Sizes().rounds}")
    parser.add_argument("--write", action="store_true", help="keep the result for docs/scale.md")
    arguments = parser.parse_args(words)
    if arguments.tiny and arguments.write:
        parser.error("--tiny measures nothing that is worth keeping")
    sizes = measured.TINY if arguments.tiny else measured.Sizes()
    if arguments.rounds is not None:
        if arguments.rounds < 1:
            parser.error("--rounds must be at least 1")
        sizes = replace(sizes, rounds=arguments.rounds)
    allow_many_files()
    sysctls = host_settings.values()  # of the host: the run has a network namespace of its own
    found = {**measured.run(sizes), "sysctls": sysctls}
    if arguments.write:
        measured.write(found)
    print(comparison.machine_line(found))
    print(comparison.units_table(found))
    print(comparison.comparison_table(found))
    for note in found["notes"]:
        print(note)
    return 0


if __name__ == "__main__":
    sys.exit(main())
