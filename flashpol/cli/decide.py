"""flashpol decide: says whether content may connect to a port, and because of which line."""

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from flashpol.cli import sources, terminal
from flashpol.cli.arguments import ALL, add_clients, clients, port
from flashpol.config import ConfigError, Listener
from flashpol.gateway.decisions import paths_for, with_gateway
from flashpol.gateway.origins import rule_of
from flashpol.policy import CLIENTS, DECIDE_CLIENTS, Decider, Decision, PolicyError
from flashpol.policy.clients.ruffle import CLIENT as RUFFLE
from flashpol.policy.clients.sandboxes import AIR, REMOTE, SANDBOXES, knows
from flashpol.policy.decoding import decode
from flashpol.policy.findings import cut_out
from flashpol.serving.policies import with_place

DESCRIPTION = """Say whether content may connect to a port by the policy in FILE, and because of which line of it. Exit
status: 0 allowed by every client asked, 1 denied by any of them, 2 unusable: FILE is not XML or cannot be read, or an
argument is wrong. With --expect: 0 as expected of every client, 1 not as expected, 2 unusable. With -c, the client
ruffle is led to the WebSocket paths for the port; a listener without one counts only if no listener has one."""

# The version of the JSON output; raised when a field changes its meaning or goes away, not when one is added.
JSON_VERSION = 1
_ALLOWED, _DENIED = "32;1", "31;1"
# Content whose sandbox says all that matters.
_ANY_FILE = "file:///"


def add_to(commands: Any) -> None:
    parser = commands.add_parser("decide", help="say what may connect where, and why", description=DESCRIPTION)
    add = parser.add_argument
    add("file", metavar="FILE", nargs="?", help="policy file, folder (merged), or - for standard input")
    add(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="ask the policy of each listener of this configuration, by the port that clients ask; for ruffle: its "
        "WebSocket paths for this port",
    )
    add("--from", dest="content", metavar="URL|DOMAIN", help="where the content was loaded from; for ruffle: the page")
    add("--port", metavar="N", type=port, required=True, help="the port that it connects to")
    add_clients(parser, "client to ask", default="flash", more=DECIDE_CLIENTS[len(CLIENTS) :])
    add("--served-from", metavar="PORT", type=port, help="port that serves the policy (default 843; Silverlight 943)")
    add("--local", action="store_true", help="the server is on the content's own host")
    add(
        "--sandbox",
        metavar="NAME",
        choices=SANDBOXES,
        help="sandbox of content that does not come from the web; --from is not needed then: "
        + "; ".join(f"{name} ({about})" for name, about in SANDBOXES.items()),
    )
    add(
        "--expect",
        metavar="WHAT",
        choices=("allowed", "denied"),
        help="allowed or denied: exit with 0 if every client decides so, 1 if not",
    )
    add("--json", action="store_true", help="print JSON, described in docs/reference.md")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.content is None and options.sandbox in (None, REMOTE):
        raise ConfigError("--from is missing: write the URL or the domain of the content, or name its --sandbox")
    if bool(options.file) is bool(options.config):
        raise ConfigError("write one policy file or folder, or -c and a configuration")
    if options.content is None:
        options.content = _ANY_FILE
    asked = [(source, _ask(source, options)) for source in _sources(options)]
    decisions = _counted(asked, options.port)
    shown = [as_json(options, *each) if options.json else for_people(options, *each) for each in asked]
    if options.json:
        print(json.dumps(shown[0] if options.file else {"version": JSON_VERSION, "policies": shown}, indent=2))
    else:
        print(terminal.encodable("\n\n".join(map(str, shown))))
    if options.expect:
        return int(any(decision.allowed is not (options.expect == "allowed") for decision in decisions))
    return int(not all(decision.allowed for decision in decisions))


def _sources(options: argparse.Namespace) -> list[sources.Source]:
    if options.file:
        return [sources.one(options.file)]
    found = [
        replace(source, settings=_with_port(source.settings, options.served_from))
        for source in sources.of_config(options.config, fragment_files=False, by_paths=True)
        if source.settings
    ]
    if not found:
        raise ConfigError("the configuration has no listeners", options.config)
    return found


def _with_port(listener: Listener, served_from: int | None) -> Listener:
    """With the port that --served-from names, if the configuration does not say which it has."""
    return replace(listener, served_from=listener.public_port or served_from)


def _counted(asked: Sequence[tuple[sources.Source, Sequence[Decision]]], number: int) -> list[Decision]:
    """The decisions that the exit status is about. Ruffle is led to the listeners with a path for the port, so the
    others do not count if there is one."""
    led = [source.settings is None or bool(paths_for(source.settings, number)) for source, _ in asked]
    return [
        decision
        for leads, (_, decisions) in zip(led, asked, strict=True)
        for decision in decisions
        if leads or decision.client != RUFFLE or not any(led)
    ]


def _ask(source: sources.Source, options: argparse.Namespace) -> Sequence[Decision]:
    chosen = clients(options, default="flash" if "flash" in source.clients else source.clients[0], every=DECIDE_CLIENTS)
    all_clients = ALL in (options.client or [])
    implied = AIR if all_clients and options.content.lower().startswith("app:") else None
    if sandbox := options.sandbox or implied:
        fitting = [client for client in chosen if knows(client, sandbox)]
        if not all_clients and len(fitting) < len(chosen):
            other = next(client for client in chosen if client not in fitting)
            raise ConfigError(f"{other} runs no {options.sandbox} content ({SANDBOXES[options.sandbox]})")
        chosen = tuple(fitting)
    try:
        decider = Decider(source.data, chosen)
        decisions = decider.decide(
            options.content,
            options.port,
            served_from=options.served_from or source.served_from,
            local=options.local,
            sandbox=options.sandbox,
        )
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    if decider.error:
        raise ConfigError(with_place(source.name, decider.error))
    if source.settings is None:
        return decisions
    rule = partial(rule_of, source.settings, policy=source.data)
    return with_gateway(
        decisions, source.settings, source.listener, options.content, options.port, rule, options.sandbox
    )


def as_json(options: argparse.Namespace, source: sources.Source, decisions: Sequence[Decision]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "version": JSON_VERSION,
        "file": options.file or source.name,
        "from": options.content,
        "port": options.port,
        "served_from": options.served_from or source.served_from,
        "local": options.local,
        "sandbox": options.sandbox,
        "allowed": all(decision.allowed for decision in decisions),
        "decisions": [asdict(decision) for decision in decisions],
    }
    return document | ({"listener": source.listener} if source.listener else {})


def for_people(options: argparse.Namespace, source: sources.Source, decisions: Sequence[Decision]) -> str:
    """Return a paragraph for each client: the verdict, the line that decides, and the client's own words."""
    paint = terminal.painter()
    lines = source_lines(source.data)
    paragraphs = ["\n".join(paragraph(source.name, lines, decision, paint)) for decision in decisions]
    if source.listener:
        paragraphs[0] = f"listener {source.listener}, port {source.served_from or 'unknown'}\n{paragraphs[0]}"
    return "\n\n".join(paragraphs)


def paragraph(name: str, lines: list[str], decision: Decision, paint: Callable[[str, str], str]) -> list[str]:
    verdict, colour = ("allowed", _ALLOWED) if decision.allowed else ("denied", _DENIED)
    place = "" if decision.line is None else f"{terminal.file_name(name)}:{decision.line}:{decision.column}: "
    shown = [f"{decision.client}: {paint(verdict, colour)}", f"  {place}{decision.reason}"]
    if decision.line is not None and decision.column is not None:
        source, caret = cut_out(lines[decision.line - 1], decision.column)
        shown += terminal.excerpt(source, caret, decision.line, lambda text: paint(text, colour))
    if decision.client_words:
        shown += [f"  it says: {words}" for words in decision.client_words.split("\n")]
    return shown


def source_lines(data: bytes) -> list[str]:
    try:
        text = decode(data)
    except PolicyError:  # of a file that is too large, some clients read the first bytes
        text = data.decode("utf-8", "replace")
    return re.split("\r\n|\r|\n", text)
