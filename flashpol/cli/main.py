"""The `flashpol` command: finds the subcommand, turns a ConfigError into one line and exit status 2."""

import argparse
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from flashpol.config import ConfigError, did_you_mean
from flashpol.config.renamed import RENAMED
from flashpol.version import VERSION

# One module of this package for each command, in the order of --help. Only the module of the command that was called is
# imported: importing all of them takes three times as long as importing probe's.
COMMANDS = ("serve", "config", "reload", "status", "top", "check", "decide", "merge", "probe", "ruffle")


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line that ends with the --help to read. Subcommands inherit it.

    subcommands: the parsers of the commands, by name; empty for a subcommand.
    """

    subcommands: dict[str, "Parser"]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}{' See' if message.endswith('?') else '; see'} {self.prog} --help\n")

    def refuse_unknown_flags(self, arguments: Sequence[str]) -> None:
        """End with an error that suggests a flag. argparse alone would name the missing arguments first."""
        for word in arguments:
            flag = word.partition("=")[0]
            if word == "--":
                return
            if flag.startswith("--") and " " not in flag and not any(known.startswith(flag) for known in self.flags):
                self.error(f"unknown flag {flag}{self._advice(flag)}")

    @property
    def flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def _advice(self, flag: str) -> str:
        if flag in RENAMED:
            return f": {RENAMED[flag]}"
        name = flag.removeprefix("--").replace("-", "_")
        if "--config" in self.flags:
            from flashpol.config.toml_loader import KEYS

            tables = [table for table, keys in KEYS.items() if name in keys]
            if tables:
                return f": {name} has no flag: set it in {tables[0]} of the configuration file"
        question = did_you_mean(flag, self.flags)
        return f": {question}" if question else ""


def command(name: str) -> ModuleType:
    return import_module(f"flashpol.cli.{name}")


def make_parser(names: Iterable[str] = COMMANDS) -> Parser:
    """A parser of these commands; the command that was called is enough."""
    parser = Parser(prog="flashpol", description=f"Flash socket policies: {', '.join(COMMANDS)}.")
    parser.add_argument("-v", "--version", action="version", version=f"flashpol {VERSION}", help="print the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        command(name).add_to(commands)
    parser.subcommands = commands.choices
    return parser


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of the command that was called; ends the process for a mistake or --help."""
    name = arguments[0] if arguments else ""
    if name not in COMMANDS:
        parser = make_parser()
        parser.refuse_unknown_flags(arguments[:1])
        if not name.startswith("-"):
            advice = did_you_mean(name, COMMANDS) or f"write one of {', '.join(COMMANDS)}"
            parser.error(f"{f'unknown command {name!r}' if name else 'COMMAND is missing'}: {advice}")
        return parser.parse_args(arguments)
    parser = make_parser([name])
    called = parser.subcommands[name]
    called.refuse_unknown_flags(arguments[1:])
    options, rest = parser.parse_known_args(arguments)
    if rest:
        called.error(f"unexpected argument {' '.join(rest)}")
    return options


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    _keep_standard_streams()
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return _of_signal(signal.SIGINT)  # while the server runs the arbiter handles Ctrl-C
    except OSError as error:
        # The interpreter flushes stdout once more at exit, which must not fail with a second message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # a reader that closed the pipe, such as head, wants no more output
            return _of_signal(signal.SIGPIPE)
        command = " ".join(["flashpol", *(word for word in arguments[:1] if word in COMMANDS)])
        print(f"{command}: {error.filename or 'standard output: cannot be written'}: {error.strerror}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str]) -> int:
    options = parse_arguments(arguments)
    try:
        return int(options.run(options))
    except ConfigError as error:
        print(f"flashpol {options.command}: {error}", file=sys.stderr)
        return 2


def _of_signal(number: signal.Signals) -> int:
    """The exit status that shells give a program which this signal ended."""
    return 128 + number


def _keep_standard_streams() -> None:
    """Open /dev/null for each standard stream that the shell closed.

    Python has None for such a stream, and its descriptor would be given to the next socket, which then gets the log.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is fd
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
