"""Arguments of more than one command."""

import argparse
from collections.abc import Collection, Sequence

from flashpol.config import ConfigError, did_you_mean
from flashpol.policy.findings import CLIENTS

ALL = "all"


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def add_clients(parser: argparse.ArgumentParser, what: str, default: str, more: Sequence[str] = ()) -> None:
    """Add --client, which may be repeated. `more` are clients that only this command knows."""
    known = (*CLIENTS, *more)
    parser.add_argument(
        "--client",
        metavar="NAME",
        action="append",
        choices=[*known, ALL],
        help=f"{what}, may be repeated: {', '.join(known)}, or {ALL} (default {default})",
    )


def clients(options: argparse.Namespace, default: str, every: tuple[str, ...] = CLIENTS) -> tuple[str, ...]:
    """The clients that are named; `every` are those that `all` stands for."""
    named = options.client or [default]
    return every if ALL in named else tuple(named)


def add_ignore(parser: argparse.ArgumentParser) -> None:
    """Add --ignore, which may be repeated."""
    parser.add_argument(
        "--ignore",
        metavar="CODE",
        action="append",
        default=[],
        help="leave this finding out, may be repeated, or several with commas",
    )


def ignored_codes(given: Sequence[str], known: Collection[str], pages: str) -> frozenset[str]:
    """The codes of --ignore. pages: the documents that list those which are `known`. Raises ConfigError."""
    codes = frozenset(code.strip().upper() for text in given for code in text.split(","))
    for code in sorted(codes.difference(known)):
        hint = did_you_mean(code, known) or f"{pages} all codes"
        raise ConfigError(f"--ignore {code!r}: there is no such finding; {hint}")
    return codes
