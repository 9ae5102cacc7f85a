"""flashpol decide: may this content connect to that port, and because of which line?"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flashpol.cli import terminal
from flashpol.cli.arguments import add_clients, clients, port
from flashpol.config import ConfigError
from flashpol.policy.findings import cut_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashpol.policy import Decision

DESCRIPTION = """Say whether content may connect to a port by the policy in FILE, and because of which line of it.
Exit status: 0 allowed by every client asked, 1 denied by any of them, 2 unusable: FILE is no XML, or cannot be read."""

STDIN = "-"
# Of the JSON output; raised when a field changes its meaning or goes away, not when one is added.
JSON_VERSION = 1
_ALLOWED, _DENIED = "32;1", "31;1"


def add_to(commands: Any) -> None:
    parser = commands.add_parser("decide", help="say who may connect where, and why", description=DESCRIPTION)
    add = parser.add_argument
    add("file", metavar="FILE", help="policy file, or - for standard input")
    add("--from", dest="content", metavar="URL|DOMAIN", required=True, help="where the content was loaded from")
    add("--port", metavar="N", type=port, required=True, help="the port it wants to connect to")
    add_clients(parser, "client to ask", default="flash")
    add("--served-from", metavar="PORT", type=port, help="where the policy is served (default 843; Silverlight: 943)")
    add("--local", action="store_true", help="the server is on the content's own host")
    add("--json", action="store_true", help="print JSON, as documented in the reference")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from flashpol.policy import Decider, PolicyError

    data = read(options.file)
    try:
        decider = Decider(data, clients(options, default="flash"))
        decisions = decider.decide(options.content, options.port, served_from=options.served_from, local=options.local)
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    if decider.error:
        raise ConfigError(f"{options.file}: {decider.error}")
    denied = not all(decision.allowed for decision in decisions)
    text = as_json(options, decisions) if options.json else for_people(options.file, data, decisions)
    print(terminal.encodable(text))
    return int(denied)


def read(name: str) -> bytes:
    """The file's bytes, or standard input's; with one too many the library refuses them. Raises ConfigError."""
    from flashpol.policy import MAX_POLICY_BYTES

    try:
        if name == STDIN:
            return sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
        with open(name, "rb") as file:
            return file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name or repr(name)}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{name}: not a file's name: {error}") from None


def as_json(options: argparse.Namespace, decisions: "Sequence[Decision]") -> str:
    document = {
        "version": JSON_VERSION,
        "file": options.file,
        "from": options.content,
        "port": options.port,
        "served_from": options.served_from,
        "local": options.local,
        "allowed": all(decision.allowed for decision in decisions),
        "decisions": [asdict(decision) for decision in decisions],
    }
    return json.dumps(document, indent=2)


def for_people(name: str, data: bytes, decisions: "Sequence[Decision]") -> str:
    """A paragraph a client: the verdict, the line that decides, and what the client itself says."""
    paint = terminal.painter()
    lines = source_lines(data)
    return "\n\n".join("\n".join(paragraph(name, lines, decision, paint)) for decision in decisions)


def paragraph(name: str, lines: list[str], decision: "Decision", paint: Callable[[str, str], str]) -> list[str]:
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
    from flashpol.policy import PolicyError
    from flashpol.policy.decoding import decode

    try:
        text = decode(data)
    except PolicyError:  # of too many bytes, some clients read the first ones all the same
        text = data.decode("utf-8", "replace")
    return re.split("\r\n|\r|\n", text)
