"""flashpol config: check a configuration and print what would run; print the defaults."""

import argparse
import hashlib
import json
import logging
import sys
import tomllib
from typing import Any

from flashpol.cli import serve
from flashpol.config import Config, as_toml, defaults, one_line

DESCRIPTION = """Check a configuration, its policies included, and print what flashpol serve would run with it, without
opening an address: the settings in force, as TOML, and for each listener the size and SHA-256 of its reply. Takes the
flags of serve. Exit status: 0 it can be served, 2 it cannot, or an argument is wrong."""

# Of the JSON output; raised when a field changes its meaning or goes away, not when one is added.
JSON_VERSION = 1


class _Warnings(logging.Handler):
    """Keeps what would go to the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(one_line(record.getMessage()))


def add_to(commands: Any) -> None:
    parser = commands.add_parser("config", help="check a configuration, print the defaults", description=DESCRIPTION)
    parser.add_argument("--defaults", action="store_true", help="print a configuration file of defaults and reasons")
    parser.add_argument("--json", action="store_true", help="write JSON, described in docs/reference.md")
    serve.add_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.defaults:
        print(defaults(), end="")
        return 0
    settings = serve.configure(options)
    from flashpol.process.privileges import Identity
    from flashpol.serving.policies import compile_all

    warnings = _Warnings()
    logger = logging.getLogger("flashpol")
    logger.addHandler(warnings)
    try:
        replies = compile_all(settings)
    finally:
        logger.removeHandler(warnings)
    Identity.of(settings.server)  # whether we may become that is another question
    facts = [{"bytes": len(reply), "sha256": hashlib.sha256(reply).hexdigest()} for reply in replies]
    if options.json:
        print(json.dumps(_data(settings, facts, warnings.lines), indent=2))
        return 0
    for line in warnings.lines:
        print(f"flashpol config: warning: {line}", file=sys.stderr)
    comments = ["# its reply: {bytes:,} bytes, sha256 {sha256}".format(**fact) for fact in facts]
    print(as_toml(settings, comments), end="")
    return 0


def _data(settings: Config, facts: list[dict[str, Any]], warnings: list[str]) -> dict[str, Any]:
    """As the file has it, and more for each listener."""
    data = {"version": JSON_VERSION, "policies": {}, **tomllib.loads(as_toml(settings)), "warnings": warnings}
    for listener, fact in zip(data["listeners"], facts, strict=True):
        listener.update(fact)
    return data
