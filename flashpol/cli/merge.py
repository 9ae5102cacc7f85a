"""flashpol merge: many policy files into one."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from flashpol.cli.files import replace
from flashpol.config import ConfigError
from flashpol.policy import MAX_POLICY_BYTES, PolicyError, merge_files
from flashpol.serving.policies import fragments, read_file

DESCRIPTION = """Merge Flash policies into one. The result allows each client exactly what some input allows it,
including Lightspark and Unity, which misread ranges of ports. Each input counts as merge would write it alone: runs of
up to 16 ports one by one, longer runs as a range. Keep the result within 1,448 bytes, or 4,000 at most: Lightspark may
deny a reply that does not fit one TCP segment, and a policy of 4,095 bytes or more has all runs of ports as ranges."""
STDIN = "-"


def add_to(commands: Any) -> None:
    parser = commands.add_parser("merge", help="merge policy files into one", description=DESCRIPTION)
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="policy file, folder (the *.xml in it), or - for standard input")
    add("-o", "--output", metavar="OUT", type=Path, help="output file, replaced atomically (default standard output)")
    add("--provenance", action="store_true", help="add comments that say which file each grant comes from")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    sources = [source for name in options.files for source in _sources(name, options.output)]
    try:
        files = [(str(source), _read(source)) for source in sources]
        merged = merge_files(files, provenance=options.provenance) + b"\n"
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    if options.output is None:
        sys.stdout.buffer.write(merged)
    else:
        replace(options.output, merged)
    return 0


def _sources(name: str, output: Path | None) -> list[Path]:
    """Return the files that an argument names; `-` is returned unchanged."""
    if not name:
        raise ConfigError("'' is not a file name; check for an unset shell variable")
    path = Path(name)
    if not os.path.isdir(path):  # unlike Path.is_dir, False for invalid names, which reading then reports
        return [path]
    found = fragments(path)
    if output is not None and output.suffix == ".xml" and _folder(output) == os.path.realpath(path):
        raise ConfigError(
            f"{output}: the output is in the merged folder, so the next merge would include it; write it elsewhere"
        )
    return found


def _folder(path: Path) -> str:
    return os.path.dirname(os.path.realpath(path))


def _read(source: Path) -> bytes:
    if str(source) != STDIN:
        return read_file(source)
    try:
        with open(0, "rb", closefd=False) as file:
            return file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"standard input: cannot be read: {error.strerror}") from None
