"""Writes `docs/rules.md` from the registry; `python docs/generate.py` calls it."""

import re
from textwrap import wrap

from flashpol.policy.rules import GROUPS, RULES, URL, Rule

_COLUMNS = 100

_INTRODUCTION = """# Rules

`flashpol check` and `flashpol.policy.lint` apply these rules to policy files.

- An **error** is something that Adobe's grammar forbids, or that a client that the policy is for
  does not understand. A correct policy has none.
- A **warning** means that the policy works, but not for every client, not as written, or for more
  content than was probably meant.
- A **note** means that the policy works as written; its author should know this.

A **trap** is something that only some clients misread. It is a warning or a note as long as the
policy is for all clients, and an error once `--client` names one of the rule's clients. Rules of
clients that are not named are skipped.

Clients get most files in reply to a policy request. With `--by-url` the rules are those of a file
that clients fetch by URL, `crossdomain.xml` or `clientaccesspolicy.xml`, which decides about URLs
and not about sockets: each rule says which files it is for.

A finding fills in the words in *italics*. Each bad example breaks its rule and no other, and each
good example breaks none, for the first client that the rule concerns.

The page is generated from `flashpol/policy/rules` by `python docs/generate.py`.
"""


def page() -> str:
    parts = [_INTRODUCTION]
    for prefix, title in GROUPS.items():
        rules = [rule for rule in RULES if rule.code.startswith(prefix)]
        parts.append(f"## {prefix}xx: {title}\n")
        parts.append("| code | severity | name | what is wrong |\n|---|---|---|---|")
        parts += [
            f"| [{rule.code}](#{rule.code.lower()}-{rule.name}) | {_severity(rule)} | {rule.name} | {_wrong(rule)} |"
            for rule in rules
        ]
        parts += ["", *map(_section, rules)]
    return _wrapped("\n".join(parts))


def _wrapped(text: str) -> str:
    """Wrap the paragraphs at 100 columns; tables, headings and code stay as they are."""
    lines: list[str] = []
    in_code = False
    for line in text.split("\n"):
        in_code ^= line.startswith("```")
        if in_code or line.startswith(("|", "#")):
            lines.append(line)
        else:
            lines += wrap(line, _COLUMNS, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def _severity(rule: Rule) -> str:
    return f"{rule.severity}, trap" if rule.trap else str(rule.severity)


def _section(rule: Rule) -> str:
    ports = [f", served from port {port}" if port else "" for port in (rule.served_from, rule.good_port)]
    kinds = "files by URL" if rule.only_by_url else "socket policies and files by URL" if URL in rule.kinds else ""
    return f"""### {rule.code} {rule.name}

{_severity(rule).capitalize()}; {", ".join(rule.clients)}{f"; {kinds}" if kinds else ""}.

Wrong: {_wrong(rule)}

Instead: {_words(rule.instead)}

Bad{ports[0]}:

```xml
{_example(rule.bad)}
```

Good{ports[1]}:

```xml
{_example(rule.good)}
```
"""


def _wrong(rule: Rule) -> str:
    return (f"{rule.about}: " if rule.about else "") + _words(rule.wrong)


def _words(template: str) -> str:
    escaped = template.replace("*", r"\*").replace("<", r"\<").replace("|", r"\|")
    return re.sub(r"\{(\w+)\}", r"*\1*", escaped)


def _example(example: str | bytes) -> str:
    """Return an example as text: invisible characters are escaped, long runs of filler are cut."""
    text = example.decode("utf-8", "backslashreplace") if isinstance(example, bytes) else example
    text = re.sub(r"\.{80,}", lambda run: f"... {len(run[0]):,} characters ...", text)
    text = re.sub(r"(?m) +$", lambda run: r"\x20" * len(run[0]), text)
    text = text.replace("\ufeff", r"\ufeff")
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text).strip("\n") or r"\n"
