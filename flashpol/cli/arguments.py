"""Arguments of more than one command."""

import argparse

from flashpol.policy.findings import CLIENTS

ALL = "all"


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def add_clients(parser: argparse.ArgumentParser, what: str, default: str) -> None:
    """Add --client, which may be repeated."""
    parser.add_argument(
        "--client",
        metavar="NAME",
        action="append",
        choices=[*CLIENTS, ALL],
        help=f"{what}, may be repeated: {', '.join(CLIENTS)}, or {ALL} (default {default})",
    )


def clients(options: argparse.Namespace, default: str) -> tuple[str, ...]:
    named = options.client or [default]
    return CLIENTS if ALL in named else tuple(named)
