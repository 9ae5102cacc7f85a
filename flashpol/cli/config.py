"""flashpol config: check a configuration and print what would run; print the defaults."""

import argparse
import hashlib
import json
import logging
import sys
import tomllib
from typing import TYPE_CHECKING, Any

from flashpol.cli.configure import add_flags, config_file, configure
from flashpol.config import Config, as_toml, defaults, one_line

if TYPE_CHECKING:
    from flashpol.serving.certificates import CertificateFacts

DESCRIPTION = """Check a configuration, its policies and its certificates without opening an address. Print the settings
that flashpol serve would run with, as TOML, with the size of each listener's reply, the SHA-256 of its policy, and the
names and the end of each certificate. It takes the flags of serve, except --pid-file. Exit status: 0 the configuration
can be served, 2 it cannot, or an argument is wrong."""

# Version of the JSON output: raised when a field changes its meaning or is removed, not when one is added.
JSON_VERSION = 1


class _Warnings(logging.Handler):
    """Collects the warnings that serve would log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(one_line(record.getMessage()))


def add_to(commands: Any) -> None:
    parser = commands.add_parser("config", help="check a configuration, print the defaults", description=DESCRIPTION)
    output = parser.add_mutually_exclusive_group()
    output.add_argument(
        "--defaults", action="store_true", help="print a configuration file of all settings, with what they do and why"
    )
    output.add_argument("--json", action="store_true", help="print JSON, in a stable format")
    output.add_argument("-q", "--quiet", action="store_true", help="print errors only; the exit status is the result")
    add_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.defaults:
        print(defaults(), end="")
        return 0
    settings = configure(options)
    from flashpol.process.privileges import Privileges
    from flashpol.serving import policy_files, websocket_findings
    from flashpol.serving.certificates import date, load_all
    from flashpol.serving.policies import compile_all

    warnings = _Warnings()
    logger = logging.getLogger("flashpol")
    logger.addHandler(warnings)
    try:
        certificates = [each.facts for each in load_all(settings).values()]
        replies = compile_all(settings)
        policy_files.load_all(settings)
        websocket_findings.warn_all(settings, replies)
    finally:
        logger.removeHandler(warnings)
    Privileges.of(settings.server)  # raises ConfigError for an unknown user; the right to become it is not checked
    if options.quiet:
        return 0
    replies_info = [
        {"bytes": len(reply), "sha256": hashlib.sha256(reply.removesuffix(b"\0")).hexdigest()} for reply in replies
    ]
    if options.json:
        print(json.dumps(_data(settings, replies_info, certificates, warnings.lines), indent=2))
        return 0
    for line in warnings.lines:
        print(f"flashpol config: warning: {line}", file=sys.stderr)
    if file := config_file(options):
        print(f"# from {one_line(str(file))}")
    comments = ["# its reply: {bytes:,} bytes; sha256 of its policy: {sha256}".format(**info) for info in replies_info]
    about = [
        f"# for {', '.join(each.names) or 'no name'}; {each.key}; until {date(each.not_after)}; sha256 {each.sha256}"
        for each in certificates
    ]
    print(as_toml(settings, comments, about), end="")
    return 0


def _data(
    settings: Config, replies_info: list[dict[str, Any]], certificates: list["CertificateFacts"], warnings: list[str]
) -> dict[str, Any]:
    """The tables of the configuration file, and what is known of each certificate and of each listener's reply."""
    tables = tomllib.loads(as_toml(settings))
    data = {"version": JSON_VERSION, "policies": {}, "certificates": {}, **tables, "warnings": warnings}
    for listener, info in zip(data["listeners"], replies_info, strict=True):
        listener.update(info)
    for facts in certificates:
        data["certificates"][facts.name].update(
            names=facts.names,
            not_before=facts.not_before,
            not_after=facts.not_after,
            kind=facts.key,
            sha256=facts.sha256,
        )
    return data
