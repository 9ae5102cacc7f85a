"""flashpol check: reports the mistakes of policy files, and of a configuration's certificates."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flashpol.cli import sources, terminal
from flashpol.cli.arguments import ALL, add_clients, add_ignore, clients, ignored_codes, port
from flashpol.config import Config, ConfigError, load, one_line
from flashpol.policy import Finding, Severity, lint
from flashpol.policy.rules import RULES
from flashpol.serving.certificates import judge_all
from flashpol.serving.websocket_findings import find

DESCRIPTION = """Report the mistakes of policy files: what is wrong, where, and what to write instead. Exit status: 0
no errors (with --strict: no findings), 1 errors (with --strict: any finding), 2 a file that cannot be read, or a wrong
argument. docs/rules.md explains the rules. With a configuration its certificates and its WebSocket paths are checked
too."""

# The version of the JSON output; raised when a field changes its meaning or goes away, not when one is added.
JSON_VERSION = 1

_COLOURS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.NOTE: "36"}


@dataclass
class Checked:
    """One file: its findings, or the error that prevented reading it."""

    file: str
    findings: list[Finding] = field(default_factory=list)
    error: str | None = None


@dataclass
class CheckedCertificate:
    """A certificate of the configuration: its findings, or the error that keeps a server from using it."""

    name: str
    findings: list[str]
    error: str | None


@dataclass
class CheckedListener:
    """A listener with WebSocket paths, and the findings about them."""

    name: str
    findings: list[str]


def add_to(commands: Any) -> None:
    parser = commands.add_parser("check", help="report the mistakes of policy files", description=DESCRIPTION)
    add = parser.add_argument
    add("files", metavar="FILE", nargs="*", help="policy file, folder (the *.xml in it), or - for standard input")
    add(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="check the policies of this configuration, each for the port and the clients of its listener, and its "
        "certificates and WebSocket paths",
    )
    add_clients(parser, "client that the policy is for", default=ALL)
    add("--served-from", metavar="PORT", type=port, help="port that serves the policy")
    add(
        "--by-url",
        action="store_true",
        help="the files are for requests by URL, as crossdomain.xml or clientaccesspolicy.xml, and not for sockets",
    )
    add_ignore(parser)
    add("--strict", action="store_true", help="exit with 1 for warnings and notes too")
    add("--json", action="store_true", help="print JSON, described in docs/reference.md")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if bool(options.files) is bool(options.config):
        raise ConfigError("FILE is missing: write policy files, or -c and a configuration file")
    if options.by_url and options.config:
        raise ConfigError("--by-url is about files; the configuration says which of its files are served by URL")
    ignored = ignored_codes(options.ignore, {rule.code for rule in RULES}, "docs/rules.md lists")
    checked: list[Checked] = []
    for source in _sources(options):
        one = _check(source, options, ignored)
        if one not in checked:  # listeners on two ports may have one policy
            checked.append(one)
    settings = load(options.config) if options.config else None
    certificates = [CheckedCertificate(*each) for each in judge_all(settings)] if settings else []
    listeners = list(_listeners(settings)) if settings else []
    counts = {
        "files": len(checked),
        "certificates": len(certificates),
        **{f"{severity}s": sum(f.severity is severity for c in checked for f in c.findings) for severity in Severity},
        "unreadable": sum(one.error is not None for one in checked),
    }
    counts["errors"] += sum(one.error is not None for one in certificates)
    counts["warnings"] += sum(len(one.findings) for one in certificates) + sum(len(one.findings) for one in listeners)
    if options.json:
        _print_json(checked, certificates, listeners, counts)
    else:
        _print_text(checked, certificates, listeners, counts)
    if counts["unreadable"]:
        return 2
    return int(counts["errors"] > 0 or (options.strict and any(counts[f"{severity}s"] for severity in Severity)))


def _sources(options: argparse.Namespace) -> list[sources.Source]:
    if options.config:
        return [*sources.of_config(options.config, fragment_files=True), *sources.by_url(options.config)]
    each = [source for name in options.files for source in sources.each(name)]
    return [replace(source, by_url=True) for source in each] if options.by_url else each


def _check(source: sources.Source, options: argparse.Namespace, ignored: frozenset[str]) -> Checked:
    if source.error is not None:
        return Checked(source.name, error=source.error)
    # Named clients replace those of a listener.
    chosen = clients(options, default=ALL) if options.client else source.clients
    if source.by_url and options.config:  # each of these files has readers of its own
        chosen = tuple(client for client in chosen if client in source.clients) or source.clients
    served_from = options.served_from or source.served_from
    found = lint(source.data, served_from=served_from, clients=chosen, by_url=source.by_url)
    return Checked(source.name, [finding for finding in found if finding.code not in ignored])


def _listeners(settings: Config) -> Iterator[CheckedListener]:
    for listener in settings.listeners:
        if listener.websocket:
            policy = sources.policy_of(settings.policy(listener.policy))
            yield CheckedListener(str(listener.name or listener.address), find(listener, policy))


def _print_json(
    checked: list[Checked],
    certificates: list[CheckedCertificate],
    listeners: list[CheckedListener],
    counts: dict[str, int],
) -> None:
    files = [
        {"file": one.file, "error": one.error, "findings": [asdict(finding) for finding in one.findings]}
        for one in checked
    ]
    # ASCII does not depend on the terminal's encoding, and cannot fail for file names that are not text.
    document = {
        "version": JSON_VERSION,
        "files": files,
        "certificates": [asdict(one) for one in certificates],
        "websocket_listeners": [asdict(one) for one in listeners],
        "summary": counts,
    }
    print(json.dumps(document, indent=2))


def _print_text(
    checked: list[Checked],
    certificates: list[CheckedCertificate],
    listeners: list[CheckedListener],
    counts: dict[str, int],
) -> None:
    paint = terminal.painter()
    for one in checked:
        name = terminal.file_name(one.file)
        if one.error is not None:
            print(f"flashpol check: {name}: cannot be read: {one.error}", file=sys.stderr)
        for finding in one.findings:
            print(_shown(name, finding, paint))
    lines = [(f"certificate {one.name}", Severity.ERROR, one.error) for one in certificates if one.error]
    lines += [(f"certificate {one.name}", Severity.WARNING, text) for one in certificates for text in one.findings]
    lines += [(f"listener {one.name}", Severity.WARNING, text) for one in listeners for text in one.findings]
    for title, severity, text in lines:
        start = f"{paint(terminal.file_name(title), '1')}: {paint(severity, _COLOURS[severity])}"
        print(terminal.encodable(f"{start}: {one_line(text)}\n"))
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
    what = [_count(counts["files"], "file")]
    what += [_count(counts["certificates"], "certificate")] * bool(counts["certificates"])
    return f"{', '.join(what)}: {', '.join(found) or 'nothing found'}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' if number != 1 else ''}"
