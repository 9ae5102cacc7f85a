"""Writes the pages that are made from the code: `make docs`. tests/test_generated.py says when that was forgotten.

docs/reference.md    its tables of settings, between markers; the rest is written by hand
docs/rules.md        lint's rules
docs/probe.md        what a probe finds
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
from flashpol.cli.main import make_parser
from flashpol.config import ConnectionLimits, ConnectionTimeouts, Listener, PolicySource, Server, settings_of
from flashpol.policy.rules.page import page as rules_page
from flashpol.probe.findings.page import page as probe_page
from flashpol.version import VERSION

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference.md"
SHARE = Path("share")
# Of the manual pages, as they print it; the release's.
DATE = "2026-11-22"

# Header of a table -> its settings, and what is said above them.
TABLES = {
    "[server]": ((Server, ConnectionTimeouts, ConnectionLimits), "Times are in seconds."),
    "[policies.NAME]": (
        (PolicySource,),
        "One of the three. Paths are relative to the configuration file. Hidden files and subfolders of a folder are "
        "not looked at.",
    ),
    "[[listeners]]": (
        (Listener,),
        "Where its limits are not the server's, `request_timeout` to `max_duration` are written here too.",
    ),
}


def settings(owners: Iterable[type]) -> Iterator[tuple[str, str, str, str]]:
    """(name, default as TOML or nothing, what to write, reason)."""
    for owner in owners:
        for name, setting in settings_of(owner).items():
            kind = setting.metadata["kind"]
            has_default = not isinstance(setting.default, type(MISSING))
            default = kind.show(setting.default) if has_default else None
            yield name, default or "", kind.expected, setting.metadata["why"]


def reference() -> str:
    """The page with its tables made anew."""
    text = REFERENCE.read_text()
    for header, (owners, about) in TABLES.items():
        rows = "".join(
            f"| `{name}` | {default and f'`{default}`'} | {why} | {expected} |\n"
            for name, default, expected, why in settings(owners)
        )
        table = f"{about}\n\n| setting | default | reason | write |\n|---|---|---|---|\n{rows}"
        start, end = f"<!-- made by make docs: {header} -->\n", "<!-- end -->"
        before, _, rest = text.partition(start)
        text = before + start + "\n" + table + "\n" + end + rest.partition(end)[2]
    return text


# ------------------------------------------------------------------------------------------------------- manual pages


def roff(text: str) -> str:
    """Text as roff takes it, in lines of less than 80 bytes; Markdown's `code` in bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub("`(.+?)`", r"\\fB\1\\fR", text)
    lines = wrap(text, 76, break_long_words=False, break_on_hyphens=False)
    return "".join(map(guarded, lines))


def guarded(line: str) -> str:
    """A line that begins with a dot or an apostrophe would be a command."""
    return (r"\&" if line[:1] in ".'" else "") + line + "\n"


def title(name: str, section: int, about: str) -> str:
    return f'.TH {name.upper()} {section} {DATE} "flashpol {VERSION}"\n.SH NAME\n{name} \\- {roff(about)}'


def items(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n{roff(term)}{roff(meaning)}" for term, meaning in pairs)


def markdown_table(header: str) -> list[tuple[str, str]]:
    """The first table of the reference whose header row begins like this, its first two columns."""
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
    text = title("flashpol", 1, "Flash socket policies: serve, check, decide, merge, probe")
    synopsis = (roff(usage(command)) for command in subparsers(parser).choices.values())
    text += ".SH SYNOPSIS\n" + ".br\n".join(synopsis)
    text += ".SH DESCRIPTION\n" + roff(
        "flashpol answers socket policy requests of Flash Player, and of what asks as it does, on port 843 or any "
        "other, and knows the language that policies are written in."
    )
    told: list[tuple[str, str]] = []
    for name, command in subparsers(parser).choices.items():
        text += f".SH {name.upper()}\n{roff(' '.join((command.description or '').split()))}"
        fresh = [argument for argument in arguments(command) if argument not in told]  # config has the flags of serve
        text += items(fresh)
        told += fresh
    text += ".SH SIGNALS\n" + items(markdown_table("signal"))
    text += ".SH EXIT STATUS\nOf flashpol serve:\n" + items(markdown_table("exit status"))
    text += ".SH EXAMPLES\n" + items(
        [
            ("flashpol serve --policy policy.xml", "Serve a policy on port 843 of all addresses."),
            ("flashpol config --defaults > flashpol.toml", "Begin a configuration file."),
            ("flashpol config -c flashpol.toml && systemctl reload flashpol", "Check it, and load it."),
            ("flashpol probe games.example.com --port 1935", "Say why clients do not connect."),
        ]
    )
    return text + ".SH SEE ALSO\n.BR flashpol.toml (5)\n"


def manual_of_file() -> str:
    text = title("flashpol.toml", 5, "configuration of flashpol")
    text += ".SH DESCRIPTION\n" + roff(
        "The file that `flashpol serve -c` reads, in TOML. Flags override it. `flashpol config --defaults` prints one "
        "with every setting, `flashpol config -c FILE` checks one and prints what would run."
    )
    for header, (owners, about) in TABLES.items():
        text += f".SH {roff(header)}{roff(about)}" + items(
            (f"`{name}`" + (f" = {default}" if default else ""), f"{why[0].upper()}{why[1:]}. Write {expected}.")
            for name, default, expected, why in settings(owners)
        )
    example = (
        '[server]\nuser = "nobody"\n\n[policies.games]\nfile = "games.xml"\n\n'
        '[policies.chat]\ngrants = [{domain = "*.example.com", ports = "1935,8000-8100"}]\n\n'
        '[[listeners]]\naddress = "192.0.2.1:843"\npolicy = "games"\n\n'
        '[[listeners]]\naddress = "192.0.2.2:843"\npolicy = "chat"\nrequest_timeout = 1.5\n'
    )
    text += ".SH EXAMPLE\nTwo addresses of a host, each with a policy of its own:\n.PP\n.nf\n"
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
        subparsers(parser).choices[entry.dest].description = entry.help  # a list has no room for the long one
    for command in subparsers(parser).choices.values():
        for action in command._actions:
            action.choices = action.choices or WORDS.get(action.dest)
            if action.metavar in ("FILE", "PATH", "OUT"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            if shell == "zsh" and isinstance(action.metavar, str):
                action.metavar = action.metavar.replace(":", r"\:")  # a bare one ends the description
    return str(shtab.complete(parser, shell=shell))


def pages() -> dict[Path, str]:
    """Everything that is made, by its path below the root."""
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
