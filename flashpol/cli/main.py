"""The `flashpol` command: finds the subcommand, turns a ConfigError into one line and exit status 2."""

import argparse
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from flashpol.config import ConfigError
from flashpol.version import VERSION

# Modules of this package, in the order of --help. Loaded one by one: all of them take three times as long as probe's.
COMMANDS = ("serve", "config", "check", "decide", "merge", "probe")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is what --help is for. Subcommands inherit it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def command(name: str) -> ModuleType:
    return import_module(f"flashpol.cli.{name}")


def make_parser(names: Iterable[str] = COMMANDS) -> Parser:
    """A parser that knows these commands, and needs to know the one that was called only."""
    parser = Parser(prog="flashpol", description="Flash socket policies: serve, config, check, decide, merge, probe.")
    parser.add_argument("--version", action="version", version=f"flashpol {VERSION}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        command(name).add_to(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    called = [name for name in COMMANDS if name in arguments[:1]]
    options = make_parser(called or COMMANDS).parse_args(arguments)
    _keep_standard_streams()
    try:
        status = int(options.run(options))
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130  # as shells count it; once the server runs, Ctrl-C is the arbiter's
    except ConfigError as error:
        print(f"flashpol {options.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        # The interpreter flushes once more when it ends, and must find nobody there to complain about.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # whoever closed a pipe wants no more, not even this
            print(f"flashpol {options.command}: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 2


def _keep_standard_streams() -> None:
    """Where the shell closed one, the interpreter has None for it, and a socket there would be sent our log."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is fd
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
