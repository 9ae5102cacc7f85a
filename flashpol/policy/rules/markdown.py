"""`docs/rules.md`, made from the table: `python -m flashpol.policy.rules.markdown > docs/rules.md`."""

import re
import sys

from flashpol.policy.rules import GROUPS, RULES, Rule

_INTRODUCTION = """# Rules

What `flashpol check` and `flashpol.policy.lint` find. Made from the table in `flashpol/policy/rules`: change a rule
there, then run `python -m flashpol.policy.rules.markdown > docs/rules.md`.

- An **error** is what Adobe's grammar forbids, or what a client that the policy is for does not understand. A correct
  policy has none.
- A **warning** works, though not for every client, not as written, or for more than was probably meant.
- A **note** is worth knowing.

A **trap** is what only some clients misread. It is a warning or a note as long as the policy is for everybody, and an
error once `--client` names one of its clients. Rules of clients that are not named are silent.

Words in *italics* are filled in by a finding. Each bad example breaks its rule and no other, each good one breaks none,
for the first client that the rule concerns.
"""


def page() -> str:
    parts = [_INTRODUCTION]
    for prefix, title in GROUPS.items():
        rules = [rule for rule in RULES if rule.code.startswith(prefix)]
        parts.append(f"## {prefix}xx: {title}\n")
        parts.append("| code | severity | name | what is wrong |\n|---|---|---|---|")
        parts += [
            f"| [{rule.code}](#{rule.code.lower()}-{rule.name}) | {_severity(rule)} | {rule.name}"
            f" | {_words(rule.wrong)} |"
            for rule in rules
        ]
        parts += ["", *map(_section, rules)]
    return "\n".join(parts)


def _severity(rule: Rule) -> str:
    return f"{rule.severity}, trap" if rule.trap else str(rule.severity)


def _section(rule: Rule) -> str:
    ports = [f", served from port {port}" if port else "" for port in (rule.served_from, rule.good_port)]
    return f"""### {rule.code} {rule.name}

{_severity(rule).capitalize()}; {", ".join(rule.clients)}.

Wrong: {_words(rule.wrong)}

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


def _words(template: str) -> str:
    escaped = template.replace("*", r"\*").replace("<", r"\<").replace("|", r"\|")
    return re.sub(r"\{(\w+)\}", r"*\1*", escaped)


def _example(example: str | bytes) -> str:
    """Return an example as text: what cannot be seen is escaped, and what is long and empty is cut."""
    text = example.decode("utf-8", "backslashreplace") if isinstance(example, bytes) else example
    text = re.sub(r"\.{80,}", lambda run: f"... {len(run[0]):,} characters ...", text)
    text = re.sub(r"(?m) +$", lambda run: r"\x20" * len(run[0]), text)
    text = text.replace("\ufeff", r"\ufeff")
    return "".join(c if c == "\n" or c.isprintable() else ascii(c)[1:-1] for c in text).strip("\n") or r"\n"


if __name__ == "__main__":
    sys.stdout.write(page())
