"""flashpol merge: many policy files into one."""

import argparse
import os
from pathlib import Path
from typing import Any

from flashpol.cli.files import replace
from flashpol.config import ConfigError
from flashpol.policy import MAX_POLICY_BYTES, PolicyError, merge_files
from flashpol.serving.policies import fragments, read_file

DESCRIPTION = """Unite Flash policies into one: every client is allowed exactly what one of them allows it,
also Lightspark and Unity, which misread ranges of ports. Each file counts as it would be written here alone: runs of up
to 16 ports one by one, longer ones as a range. Keep the result within 4,000 bytes: a larger one has ports in ranges
only, and Lightspark reads none of 4,096 bytes or more."""
STDIN = "-"
STDOUT = 1


def add_to(commands: Any) -> None:
    parser = commands.add_parser("merge", help="many policy files into one", description=DESCRIPTION)
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="policy file, a folder (its *.xml), or - for standard input")
    add("-o", "--output", metavar="OUT", type=Path, help="write here, at once or not at all (default standard output)")
    add("--provenance", action="store_true", help="say in comments where each grant comes from")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    sources = [source for name in options.files for source in _sources(name, options.output)]
    try:
        files = [(str(source), _read(source)) for source in sources]
        merged = merge_files(files, provenance=options.provenance) + b"\n"
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    if options.output is None:
        _print(merged)
    else:
        replace(options.output, merged)
    return 0


def _sources(name: str, output: Path | None) -> list[Path]:
    """The files that an argument names; `-` is kept as it is."""
    if not name:
        raise ConfigError("'': not a file's name: an unset variable?")
    path = Path(name)
    if not os.path.isdir(path):  # unlike Path's, False for names that are none, which reading then reports
        return [path]
    found = fragments(path)
    if output is not None and output.suffix == ".xml" and _folder(output) == os.path.realpath(path):
        raise ConfigError(
            f"{output}: in the folder that is merged, it would be part of the next merge: write elsewhere"
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


def _print(data: bytes) -> None:
    try:
        with open(STDOUT, "wb", closefd=False) as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"standard output: cannot be written: {error.strerror}") from None
