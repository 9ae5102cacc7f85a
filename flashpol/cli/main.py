"""The `flashpol` command: finds the subcommand, turns a ConfigError into one line and exit status 2."""

import argparse
import sys
from typing import NoReturn

from flashpol.cli import check, decide, merge, serve
from flashpol.config import ConfigError
from flashpol.version import VERSION

COMMANDS = (serve, check, decide, merge)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is what --help is for. Subcommands inherit it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="flashpol", description="Flash socket policies: serve, check, decide, merge.")
    parser.add_argument("--version", action="version", version=f"flashpol {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        return 130  # as shells count it; once the server runs, Ctrl-C is the arbiter's
    except ConfigError as error:
        print(f"flashpol {options.command}: {error}", file=sys.stderr)
        return 2
