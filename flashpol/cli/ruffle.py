"""flashpol ruffle: prints what a page has to tell Ruffle, so that content reaches the listeners of a configuration."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashpol.cli import sources
from flashpol.cli.arguments import port
from flashpol.cli.configure import DEFAULT_CONFIG
from flashpol.config import Config, ConfigError, Listener, check, did_you_mean, load, one_line
from flashpol.gateway.ruffle import WS, PublicUrl, Route, require_host, routes, script, warn_of_pages
from flashpol.serving.websocket_findings import find

DESCRIPTION = """Print the setting socketProxy of Ruffle for the WebSocket paths of a configuration, as JSON and as a
<script> for the page. There is an entry for each host name that the content uses and for each port. Exit status: 0
printed, 1 printed with warnings, 2 nothing printed: the configuration has no such path or cannot be read, or an
argument is wrong."""

# The version of the JSON output; raised when a field changes its meaning or goes away, not when one is added.
JSON_VERSION = 1


def add_to(commands: Any) -> None:
    parser = commands.add_parser("ruffle", help="print what a page tells Ruffle", description=DESCRIPTION)
    add = parser.add_argument
    add(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        default=DEFAULT_CONFIG,
        help=f"configuration file (default {DEFAULT_CONFIG})",
    )
    add(
        "--host",
        metavar="NAME",
        action="append",
        required=True,
        help="host name or address that the content connects to, as it writes it; may be repeated",
    )
    add("--port", metavar="N", type=port, action="append", help="only entries for this port; may be repeated")
    add("--listener", metavar="NAME", help="only entries of this listener")
    add(
        "--url",
        metavar="URL",
        help="where browsers reach the listeners, such as wss://play.example.com, if a proxy with TLS is in front of "
        "them or the name differs (default: the name of --host, the port of the listener, wss if it has tls)",
    )
    add(
        "--page",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="origin or URL of a page that has the content, such as https://games.example.com: warn if its content "
        "could not connect; may be repeated",
    )
    add("--json", action="store_true", help="print JSON, described in docs/reference.md")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    hosts = list(dict.fromkeys(options.host))
    for host in hosts:
        require_host(host)
    url = PublicUrl.parse(options.url) if options.url is not None else None
    settings = check(load(options.config))
    chosen = _of_ports(routes(_listeners(options, settings), hosts, url), options.port)
    warnings = warn_of_pages(
        chosen, options.page, lambda listener: sources.policy_of(settings.policy(listener.policy)), find
    )
    entries = [route.entry for route in chosen]
    if options.json:
        document = {
            "version": JSON_VERSION,
            "socketProxy": [entry.as_setting for entry in entries],
            "script": script(entries),
            "warnings": warnings,
        }
        print(json.dumps(document, indent=2))
    else:
        for line in warnings:
            print(f"flashpol ruffle: warning: {one_line(line)}", file=sys.stderr)
        lines = ",\n".join(f"  {json.dumps(entry.as_setting)}" for entry in entries)
        print(f"The setting socketProxy of Ruffle:\n\n[\n{lines}\n]\n")
        print(f"In the page, before the script of Ruffle:\n\n{script(entries)}", end="")
        if any(entry.url.startswith(f"{WS}:") for entry in entries):
            print("\nws:// is for pages over http; a page over https needs wss://.")
    return int(bool(warnings))


def _listeners(options: argparse.Namespace, settings: Config) -> Sequence[Listener]:
    found = [each for each in settings.listeners if each.websocket]
    if not found:
        raise ConfigError("no listener has websocket: write websocket = true in [[listeners]]", options.config)
    if options.listener is None:
        return found
    named = [each for each in found if options.listener in (each.name, str(each.address))]
    if not named:
        known = [str(each.name or each.address) for each in found]
        advice = did_you_mean(options.listener, known) or f"write one of {', '.join(known)}"
        raise ConfigError(f"--listener {options.listener!r}: no listener with websocket has this name; {advice}")
    return named


def _of_ports(found: Sequence[Route], ports: Sequence[int] | None) -> Sequence[Route]:
    known = dict.fromkeys(route.entry.port for route in found)
    for number in ports or ():
        if number not in known:
            raise ConfigError(
                f"--port {number}: no WebSocket path is for content that connects to this port, only for "
                f"{', '.join(map(str, known))}; set port in [[listeners.websocket]]"
            )
    return [route for route in found if not ports or route.entry.port in ports]
