"""flashpol check: what is wrong with policy files."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flashpol.cli import terminal
from flashpol.cli.arguments import ALL, add_clients, clients, port
from flashpol.config import ConfigError
from flashpol.policy import MAX_POLICY_BYTES, Finding, Severity, lint
from flashpol.serving.policies import fragments

DESCRIPTION = """Say what is wrong with policy files, where, and what to write instead. Exit status: 0 clean, 1 errors
(with --strict: any finding), 2 a file that cannot be read. The rules are explained in docs/rules.md."""

# Of the JSON output; raised when a field changes its meaning or goes away, not when one is added.
JSON_VERSION = 1

_COLOURS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.NOTE: "36"}


@dataclass
class Checked:
    """One file: its findings, or why there are none."""

    file: str
    findings: list[Finding] = field(default_factory=list)
    error: str | None = None


def add_to(commands: Any) -> None:
    parser = commands.add_parser("check", help="say what is wrong with policy files", description=DESCRIPTION)
    add = parser.add_argument
    add("files", metavar="FILE", nargs="+", help="policy file, folder (the *.xml in it), or - for standard input")
    add_clients(parser, "client that the policy is for", default=ALL)
    add("--served-from", metavar="PORT", type=port, help="port that the policy is served from")
    add("--strict", action="store_true", help="exit with 1 for warnings and notes too")
    add("--json", action="store_true", help="write JSON, described in docs/reference.md")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    chosen = clients(options, default=ALL)

    def check(name: str) -> Checked:
        try:
            return Checked(name, lint(_read(name), served_from=options.served_from, clients=chosen))
        except (OSError, ValueError) as error:  # ValueError: a NUL in a file's name
            return Checked(name, error=getattr(error, "strerror", None) or str(error))

    checked = [one for name in options.files for one in _files(name, check)]
    counts = {
        "files": len(checked),
        **{f"{severity}s": sum(f.severity is severity for c in checked for f in c.findings) for severity in Severity},
        "unreadable": sum(one.error is not None for one in checked),
    }
    if options.json:
        _print_json(checked, counts)
    else:
        _print_text(checked, counts)
    if counts["unreadable"]:
        return 2
    return int(any(f.severity is Severity.ERROR or options.strict for one in checked for f in one.findings))


def _files(name: str, check: Callable[[str], Checked]) -> Iterator[Checked]:
    if name == "-" or not os.path.isdir(name):
        yield check(name)
        return
    try:
        inside = fragments(Path(name))
    except ConfigError as error:
        yield Checked(name, error=str(error).removeprefix(f"{name}: "))
        return
    yield from map(check, map(str, inside))


def _read(name: str) -> bytes:
    """One byte too many is enough for lint to say that a file is too large."""
    if name == "-":
        return sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
    with open(name, "rb") as file:
        return file.read(MAX_POLICY_BYTES + 1)


def _print_json(checked: list[Checked], counts: dict[str, int]) -> None:
    files = [
        {"file": one.file, "error": one.error, "findings": [asdict(finding) for finding in one.findings]}
        for one in checked
    ]
    # ASCII, so that it does not depend on the terminal's encoding, nor fail for names that are no text.
    print(json.dumps({"version": JSON_VERSION, "files": files, "summary": counts}, indent=2))


def _print_text(checked: list[Checked], counts: dict[str, int]) -> None:
    paint = terminal.painter()
    for one in checked:
        name = terminal.file_name(one.file)
        if one.error is not None:
            print(f"flashpol check: {name}: cannot be read: {one.error}", file=sys.stderr)
        for finding in one.findings:
            print(_shown(name, finding, paint))
    print(_summary(counts))


def _shown(name: str, finding: Finding, paint: Callable[[str, str], str]) -> str:
    colour = _COLOURS[finding.severity]
    severity = paint(f"{finding.severity} {finding.code}", colour)
    lines = terminal.excerpt(finding.source, finding.caret, finding.line, lambda text: paint(text, colour))
    margin = " " * len(str(finding.line))
    return "\n".join(
        (
            terminal.encodable(
                f"{paint(f'{name}:{finding.line}:{finding.column}', '1')}: {severity} {finding.name}: {finding.message}"
            ),
            *lines,
            terminal.encodable(f"  {margin} = {finding.instead} [{', '.join(finding.clients)}]\n"),
        )
    )


def _summary(counts: dict[str, int]) -> str:
    found = [_count(counts[f"{severity}s"], severity) for severity in Severity if counts[f"{severity}s"]]
    if counts["unreadable"]:
        found.append(f"{counts['unreadable']} cannot be read")
    return f"{_count(counts['files'], 'file')}: {', '.join(found) or 'nothing found'}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
