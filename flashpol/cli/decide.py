"""flashpol decide: may this content connect to that port, and because of which line?"""

import argparse
import json
import os
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flashpol.config import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flashpol.policy import Decision

DESCRIPTION = """Say whether content may connect to a port by the policy in FILE, and because of which line of it.
Exit status: 0 allowed by every client asked, 1 denied by any of them, 2 unusable: FILE is no XML, or cannot be read."""

STDIN = "-"
# A line of the policy as it is shown: of a file without line breaks, the part around the place that decides.
_SHOWN_CHARACTERS = 100
_GREEN, _RED, _BOLD, _PLAIN = "\033[32m", "\033[31m", "\033[1m", "\033[0m"


def add_to(commands: Any) -> None:
    parser = commands.add_parser("decide", help="say who may connect where, and why", description=DESCRIPTION)
    add = parser.add_argument
    add("file", metavar="FILE", help="policy file, or - for standard input")
    add("--from", dest="content", metavar="URL|DOMAIN", required=True, help="where the content was loaded from")
    add("--port", metavar="N", type=int, required=True, help="the port it wants to connect to")
    add(
        "--client",
        metavar="CLIENT",
        default="flash",
        help="flash, lightspark, unity, silverlight or all (default flash)",
    )
    add("--served-from", metavar="PORT", type=int, help="where the policy is served (default 843; Silverlight: 943)")
    add("--local", action="store_true", help="the server is on the content's own host")
    add("--json", action="store_true", help="print JSON, as documented in the reference")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from flashpol.policy import CLIENTS, Decider, PolicyError

    data = read(options.file)
    try:
        decider = Decider(data, CLIENTS if options.client == "all" else [options.client])
        decisions = decider.decide(options.content, options.port, served_from=options.served_from, local=options.local)
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    if decider.error:
        raise ConfigError(f"{options.file}: {decider.error}")
    denied = not all(decision.allowed for decision in decisions)
    text = as_json(options, decisions) if options.json else for_people(options.file, data, decisions)
    # In whatever encoding: what a policy quotes must not end in a traceback.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
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
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    lines = source_lines(data)
    return "\n\n".join("\n".join(paragraph(name, lines, decision, colour)) for decision in decisions)


def paragraph(name: str, lines: list[str], decision: "Decision", colour: bool) -> list[str]:
    verdict = "allowed" if decision.allowed else "denied"
    if colour:
        verdict = f"{_GREEN if decision.allowed else _RED}{_BOLD}{verdict}{_PLAIN}"
    place = "" if decision.line is None else f"{printable(name)}:{decision.line}:{decision.column}: "
    shown = [f"{decision.client}: {verdict}", f"  {place}{decision.reason}"]
    if decision.line is not None and decision.column is not None:
        shown += excerpt(lines[decision.line - 1], decision.line, decision.column)
    if decision.client_words:
        shown += [f"  it says: {words}" for words in decision.client_words.split("\n")]
    return shown


def excerpt(line: str, number: int, column: int) -> list[str]:
    """The line and a caret under the column."""
    begin = 0 if column <= _SHOWN_CHARACTERS else column - 1 - _SHOWN_CHARACTERS // 2
    part = printable(line[begin : begin + _SHOWN_CHARACTERS])
    before = "..." if begin else ""
    after = "..." if begin + _SHOWN_CHARACTERS < len(line) else ""
    gutter = f"  {number} | "
    caret = " " * (len(gutter) - 2) + "| " + " " * (len(before) + column - 1 - begin) + "^"
    return [f"{gutter}{before}{part}{after}".rstrip(), caret]


def printable(text: str) -> str:
    """One character for each character, none of which a terminal obeys."""
    return "".join(c if c.isprintable() else " " if c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def source_lines(data: bytes) -> list[str]:
    from flashpol.policy import PolicyError
    from flashpol.policy.source import decode

    try:
        text = decode(data)
    except PolicyError:  # of too many bytes, some clients read the first ones all the same
        text = data.decode("utf-8", "replace")
    return re.split("\r\n|\r|\n", text)
