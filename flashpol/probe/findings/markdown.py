"""`docs/probe.md`, made from the table: `make docs`."""

import re

from flashpol.probe.findings import GROUPS, RULES, Rule

_INTRODUCTION = """# What a probe finds

What `flashpol probe` says about a server. Made from the table in `flashpol/probe/findings`: change a row there, then
run `make docs`. What it says about the policy itself has codes that begin with FP: [rules.md](rules.md).

- An **error** keeps clients from connecting, now and then or always.
- A **warning** costs their users time, or works for some of them only.
- A **note** is worth knowing.

A **trap** is what only some clients stumble over: it is an error once `--client` names any client. What is marked
**thorough** takes `--thorough`. Words in *italics* are filled in by a finding.
"""

# The things that go wrong for operators, and the codes that show them.
PROBLEMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("A firewall drops port 843 without a word", ("PB102",)),
    ("No NUL, and the connection is held open", ("PB207",)),
    ("Typographic quotes and dashes, tags that a blog removed", ("FP109", "FP110", "FP116", "PB206")),
    ("The reply comes in several writes", ("PB212", "PB213")),
    ("A web server answers, or a crossdomain.xml is expected to do", ("PB204", "FP103", "FP104")),
    ("Tests with telnet or `echo` mislead", ("PB309",)),
    ("The server matches what one receive brings", ("PB303", "PB304")),
    ("The server reads 22 of the 23 bytes and closes", ("PB301", "PB302", "PB203", "PB315")),
    ("No right to bind port 843", ("PB105",)),
    ("A proxy or a network in between drops the request", ("PB109", "PB202", "PB203", "PB206")),
    ("TLS on one side only", ("PB205",)),
    ("The port is not in `to-ports`, or `to-ports` is missing", ("PB403", "PB404", "FP401")),
    ("A policy from a port of 1024 or above grants ports below", ("FP508", "FP509")),
    ("An IP address is granted and a name is used, or the other way round", ("PB403", "FP313")),
    ("`site-control` contradicts the rest", ("PB401", "PB402", "FP502", "FP503", "FP505", "FP506", "FP507")),
    ("Malformed XML", ("FP110",)),
    ("Encodings, and the length that Java's writeUTF puts in front", ("FP105", "FP106", "FP108", "FP113")),
    ("Wrong host or port", ("PB101", "PB105", "PB106", "PB107", "PB108")),
    ("No time-outs, and servers that wait for a newline", ("PB201", "PB305", "PB306", "PB313", "PB314")),
    ("Dialects mixed up", ("PB316", "FP117", "FP511", "FP702", "FP806", "FP807", "FP811")),
)


def page() -> str:
    parts = [_INTRODUCTION, "## What goes wrong for operators\n", "| what goes wrong | codes |\n|---|---|"]
    parts += [f"| {what} | {', '.join(map(_link, codes))} |" for what, codes in PROBLEMS]
    parts.append("")
    for prefix, title in GROUPS.items():
        rules = [rule for rule in RULES if rule.code.startswith(prefix)]
        parts += [f"## {prefix}xx: {title}\n", "| code | severity | name | what is wrong |\n|---|---|---|---|"]
        parts += [f"| {_link(rule.code)} | {_severity(rule)} | {rule.name} | {_words(rule.wrong)} |" for rule in rules]
        parts += ["", *map(_section, rules)]
    return "\n".join(parts)


def _link(code: str) -> str:
    return f"[{code}](#{code.lower()}-{_names()[code]})" if code.startswith("PB") else f"[{code}]({_lint_page(code)})"


def _names() -> dict[str, str]:
    return {rule.code: rule.name for rule in RULES}


def _lint_page(code: str) -> str:
    from flashpol.policy.rules import RULES as LINT_RULES

    [name] = [rule.name for rule in LINT_RULES if rule.code == code]
    return f"rules.md#{code.lower()}-{name}"


def _severity(rule: Rule) -> str:
    return ", ".join((str(rule.severity), *["trap"] * rule.trap, *["thorough"] * rule.thorough))


def _section(rule: Rule) -> str:
    return f"""### {rule.code} {rule.name}

{_severity(rule).capitalize()}; {", ".join(rule.clients)}.

Wrong: {_words(rule.wrong)}

Seen: {_words(rule.seen)}

Do: {_words(rule.instead)}
"""


def _words(template: str) -> str:
    """Markdown; what stands in backquotes already is code."""
    parts = template.split("`")
    parts[::2] = [re.sub(r"([*<|])", r"\\\1", part) for part in parts[::2]]
    return re.sub(r"\{(\w+)\}", r"*\1*", "`".join(parts))
