"""Writes the pages that are generated from the code: `make docs`. tests/test_generated.py fails if one is out of date.

docs/reference.md    flags, settings, failures of handshakes, between markers; the rest is written by hand
docs/rules.md        the rules of lint
docs/probe.md        the findings of a probe
share/               manual pages and shell completion, laid out as they are installed below /usr or a venv
"""

import argparse
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING
from pathlib import Path
from textwrap import wrap

import shtab

from flashpol import config
from flashpol.admin.tls import HANDSHAKE_FAILURES
from flashpol.admin.websocket import CLOSES, REFUSALS
from flashpol.cli.configure import DEFAULT_CONFIG
from flashpol.cli.main import make_parser
from flashpol.cli.pid_file import DEFAULT_PID_FILE
from flashpol.config import (
    CertificateSource,
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    ProtocolUpstreams,
    Server,
    WebSocketPath,
    describe,
    settings_of,
)
from flashpol.policy.rules.markdown import page as rules_page
from flashpol.probe.findings.markdown import page as probe_page
from flashpol.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference.md"
SHARE = Path("share")
# Date of the release, as the manual pages print it.
DATE = "2026-11-22"

# Table of the configuration file -> the classes of its settings, and an introduction.
TABLES = {
    "[server]": ((Server, ConnectionTimeouts, ConnectionLimits), "Times are in seconds."),
    "[policies.NAME]": ((PolicySource,), "A policy has exactly one of these."),
    "[certificates.NAME]": (
        (CertificateSource,),
        "A certificate is for listeners that name it in `tls`.",
    ),
    "[[listeners]]": (
        (Listener,),
        "A listener may have timeouts of its own: `request_timeout` to `rtmpt_body` may be written here too.",
    ),
    "[[listeners.websocket]]": (
        (WebSocketPath,),
        "A table for each path at which the listener above takes WebSocket connections; `websocket = true` in the "
        'listener is one table with `path = "*"`.',
    ),
    "[listeners.upstreams]": (
        (ProtocolUpstreams,),
        "The upstreams of the listener above by protocol, which the first bytes of a client show. What is not named "
        "here goes to `upstream` of the listener; without that it is refused, as on a port without an upstream.",
    ),
}
# Commands whose flags the reference takes from --help.
COMMANDS = ("serve", "config", "reload", "status", "top", "ruffle")
WIDTH = 100  # of Markdown


def settings(owners: Iterable[type]) -> Iterator[tuple[str, str, str, str]]:
    """(name, default as TOML or empty, what it does and why, what to write)."""
    for owner in owners:
        for name, setting in settings_of(owner).items():
            kind = setting.metadata["type"]
            has_default = not isinstance(setting.default, type(MISSING))
            default = kind.show(setting.default) if has_default else None
            yield name, default or "", describe(setting), f"Write {kind.expected}."


def filled(text: str, indent: str = "") -> str:
    """A paragraph of Markdown."""
    return "\n".join(wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)) + "\n"


def list_of_settings(owners: Iterable[type], about: str) -> str:
    items = (
        filled(
            f"- **`{name}`** ({f'default `{default}`' if default else 'no default'}): {description} {expected}",
            indent="  ",
        )
        for name, default, description, expected in settings(owners)
    )
    return filled(about) + "\n" + "".join(items)


def table_of_flags(name: str) -> str:
    """The flags of a command; the flags that config shares with serve are one row."""
    commands = subparsers(make_parser()).choices
    shared = [*arguments(commands["serve"])] if name == "config" else []
    rows = [pair for pair in arguments(commands[name]) if pair not in shared]
    if shared:
        flags = [re.sub(" [^`]+$", "", pair[0]) for pair in arguments(commands[name]) if pair in shared]
        rows.append((", ".join(flags), "as for `flashpol serve`."))
    table = "| flag | meaning |\n|---|---|\n"
    for flag, meaning in rows:
        code = re.sub("` ([^`]+)$", r" \1`", flag)  # the value within the backquotes too
        table += f"| {code} | {meaning.removesuffix('.')} |\n".replace("*.", r"\*.")
    return table


def table_of_handshake_failures() -> str:
    """Why, and what to do; names of settings and commands as code."""
    code = re.compile(r'flashpol probe HOST --tls|\w+_\w+( = (?:"\w+"|\w+))?')
    rows = (f"| `{name}` | {each.words} | {each.advice} |\n" for name, each in HANDSHAKE_FAILURES.items())
    text = "".join(code.sub(r"`\g<0>`", row) for row in rows)
    return "| `reason` | what happened | what to do |\n|---|---|---|\n" + text.replace("``", "`")


def table_of_refused_upgrades() -> str:
    code = re.compile(r"flashpol probe --websocket URL|flashpol_\w+|without_origin = true|origins|upstream\b(?= of)")
    rows = (f"| `{name}` | {each.words} | {as_code(code, each.advice)} |\n" for name, each in REFUSALS.items())
    return "| `result` | what happened | what to do |\n|---|---|---|\n" + "".join(rows)


def table_of_closes() -> str:
    """A row for each code, with what it means from either side."""
    code = re.compile(r"[a-z]+_[a-z_]+|text(?= is false)")
    rows = (
        f"| `{name}` | {words} | {as_code(code, CLOSES['server'][name])} |\n"
        for name, words in CLOSES["client"].items()
    )
    return "| `code` | from the client | from the server |\n|---|---|---|\n" + "".join(rows)


def as_code(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(r"`\g<0>`", text)


def reference() -> str:
    """The page with its generated parts replaced."""
    parts = {header: list_of_settings(owners, about) for header, (owners, about) in TABLES.items()}
    parts |= {f"flags of {name}": table_of_flags(name) for name in COMMANDS}
    parts["handshake failures"] = table_of_handshake_failures()
    parts["refused upgrades"] = table_of_refused_upgrades()
    parts["closes"] = table_of_closes()
    text = REFERENCE.read_text()
    for name, part in parts.items():
        start, end = f"<!-- made by make docs: {name} -->\n", "<!-- end -->"
        before, marker, rest = text.partition(start)
        assert marker, name
        text = before + start + "\n" + part + "\n" + end + rest.partition(end)[2]
    return text


# ------------------------------------------------------------------------------------------------------- manual pages


def roff(text: str) -> str:
    """Text as roff, in lines of less than 80 bytes; `code` of Markdown is bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub("`(.+?)`", r"\\fB\1\\fR", text)
    lines = wrap(text, 76, break_long_words=False, break_on_hyphens=False)
    return "".join(map(guarded, lines))


def guarded(line: str) -> str:
    """A line of text: one that begins with a dot or an apostrophe would be a request."""
    return (r"\&" if line[:1] in ".'" else "") + line + "\n"


def title(name: str, section: int, about: str) -> str:
    return f'.TH {name.upper()} {section} {DATE} "flashpol {VERSION}"\n.SH NAME\n{name} \\- {roff(about)}'


def items(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n{roff(term)}{roff(meaning)}" for term, meaning in pairs)


def markdown_table(header: str) -> list[tuple[str, str]]:
    """The first two columns of the first table of the reference whose header row begins like this."""
    rows = REFERENCE.read_text().split(f"\n| {header} ", 1)[1].split("\n\n")[0].splitlines()[2:]
    return [(cells[0], cells[1]) for row in rows if (cells := re.split(r" ?(?<!\\)\| ?", row)[1:])]


def subparsers(parser: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    [found] = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return found


def arguments(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            value = "" if action.nargs == 0 else f" {action.metavar}"
            flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
            yield (flags + value).strip(), f"{action.help}."


def usage(parser: argparse.ArgumentParser) -> str:
    return " ".join(parser.format_usage().removeprefix("usage: ").split())


def manual_of_command() -> str:
    parser = make_parser()
    text = title("flashpol", 1, "Flash socket policy server and its tools")
    synopsis = (roff(usage(command)) for command in subparsers(parser).choices.values())
    text += ".SH SYNOPSIS\n.nh\n" + ".br\n".join(synopsis) + ".hy\n"
    text += ".SH DESCRIPTION\n" + roff(
        "flashpol replies to the socket policy requests that Flash Player and compatible clients send to port 843, or "
        "to any other port. It also checks, explains and merges policy files, and probes policy servers of any make."
    )
    listed: list[tuple[str, str]] = []
    for name, command in subparsers(parser).choices.items():
        text += f".SH {name.upper()}\n{roff(' '.join((command.description or '').split()))}"
        new = [argument for argument in arguments(command) if argument not in listed]  # config has the flags of serve
        text += items(new)
        listed += new
    text += ".SH SIGNALS\n" + items(markdown_table("signal"))
    text += ".SH EXIT STATUS\nOf flashpol serve:\n" + items(markdown_table("exit status"))
    text += ".SH EXAMPLES\n" + items(
        [
            ("flashpol serve --policy policy.xml", "Serve a policy on port 843 of all addresses."),
            ("flashpol config --defaults > flashpol.toml", "Write a configuration file with every setting."),
            ("flashpol config --quiet -c flashpol.toml && systemctl reload flashpol", "Check it, then load it."),
            ("flashpol status", "Show what the server of this host does."),
            ("flashpol top", "Show it live."),
            ("flashpol probe games.example.com --port 1935", "Say why clients do not connect."),
            ("flashpol probe media.example.com --rtmp live", "Say in which way a media server is reached."),
            ("flashpol ruffle --host games.example.com", "Print what a page with Ruffle needs to connect."),
        ]
    )
    text += ".SH FILES\n" + items(
        [
            (f"`{DEFAULT_CONFIG}`", "Configuration that serve and config read without -c; see flashpol.toml(5)."),
            (f"`{DEFAULT_PID_FILE}`", "Process id that reload reads; serve writes one only with --pid-file."),
        ]
    )
    text += ".SH ENVIRONMENT\n" + items(
        [
            ("`NO_COLOR`", "Commands print no colours if it is set and not empty."),
            ("`TERM`", "Commands print no colours if it is `dumb`."),
            ("`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `LISTEN_FDS`, `LISTEN_FDNAMES`", "Set by systemd for serve."),
        ]
    )
    return text + ".SH SEE ALSO\n.BR flashpol.toml (5)\n"


def manual_of_file() -> str:
    text = title("flashpol.toml", 5, "configuration of flashpol")
    text += ".SH DESCRIPTION\n" + roff(
        "`flashpol serve -c FILE` reads this file, in TOML; flags override it. `flashpol config --defaults` prints a "
        "file with every setting, `flashpol config -c FILE` checks one and prints what would run."
    )
    for header, (owners, about) in TABLES.items():
        text += f".SH {roff(header)}{roff(about)}" + items(
            (f"`{name}`" + (f" = {default}" if default else ""), f"{description} {expected}")
            for name, default, description, expected in settings(owners)
        )
    example = (
        '[server]\nuser = "flashpol"\n\n[policies.games]\nfile = "games.xml"\n\n'
        '[policies.chat]\ngrants = [{domain = "*.example.com", ports = "1935,8000-8100"}]\n\n'
        '[[listeners]]\naddress = "192.0.2.1:843"\npolicy = "games"\n\n'
        '[[listeners]]\naddress = "192.0.2.2:843"\npolicy = "chat"\nrequest_timeout = 1.5\n'
    )
    text += ".SH EXAMPLE\nTwo addresses of one host, each with its own policy:\n.PP\n.nf\n"
    return text + "".join(map(guarded, example.splitlines())) + ".fi\n.SH SEE ALSO\n.BR flashpol (1)\n"


# --------------------------------------------------------------------------------------------------------- completion

WORDS = {
    "workers": ["auto"],
    "admin": ["off"],
    "dialect": config.DIALECTS,
    "log_format": config.LOG_FORMATS,
}
COMPLETIONS = {
    "bash": "bash-completion/completions/flashpol",
    "zsh": "zsh/site-functions/_flashpol",
    "fish": "fish/vendor_completions.d/flashpol.fish",
}


def completion(shell: str) -> str:
    parser = make_parser()
    for entry in subparsers(parser)._choices_actions:
        subparsers(parser).choices[entry.dest].description = entry.help  # a menu has no room for the long description
    for command in subparsers(parser).choices.values():
        for action in command._actions:
            action.choices = action.choices or WORDS.get(action.dest)
            if action.metavar in ("FILE", "PATH", "OUT", "CHAIN[,KEY]"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            if shell == "zsh" and isinstance(action.metavar, str):
                action.metavar = action.metavar.replace(":", r"\:")  # a bare colon ends the description
    return str(shtab.complete(parser, shell=shell))


def pages() -> dict[Path, str]:
    """Every generated page, by its path below the root."""
    return {
        Path("docs/reference.md"): reference(),
        Path("docs/rules.md"): rules_page(),
        Path("docs/probe.md"): probe_page(),
        SHARE / "man/man1/flashpol.1": manual_of_command(),
        SHARE / "man/man5/flashpol.toml.5": manual_of_file(),
        **{SHARE / path: completion(shell) for shell, path in COMPLETIONS.items()},
    }


if __name__ == "__main__":
    for path, text in pages().items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
