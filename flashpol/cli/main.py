"""The `flashpol` command: finds the subcommand, turns a ConfigError into one line and exit status 2."""

import argparse
import sys

from flashpol.cli import serve
from flashpol.config import ConfigError
from flashpol.version import VERSION

COMMANDS = (serve,)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flashpol", description="Flash socket policies: serve them.")
    parser.add_argument("--version", action="version", version=f"flashpol {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(f"flashpol {options.command}: {error}", file=sys.stderr)
        return 2
