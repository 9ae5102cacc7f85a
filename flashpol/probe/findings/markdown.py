"""Generates `docs/probe.md` from the registry: `make docs`."""

import re
from textwrap import fill

from flashpol.probe.findings import GROUPS, RULES, Rule

_INTRODUCTION = """# What a probe finds

`flashpol probe` reports these findings about a policy server. Findings about the policy itself have codes that begin
with FP: [rules.md](rules.md).

- An **error** keeps clients from connecting, always or intermittently.
- A **warning** costs users time, or works for some clients only.
- A **note** is worth knowing.

A **trap** concerns only some clients; it is an error if `--client` names one of them. A finding marked **thorough**
needs `--thorough`. A finding fills in the words in *italics*.

A probe opens up to four connections to each port that serves a policy, and some thirty with `--thorough`. Some of them
send an incomplete or an unusual request. A server that limits connections or bans addresses may shut the prober out.

With `--tls` all of them are inside TLS, and up to three more find out what the server takes; one asks in plain text.
Findings about TLS concern three clients: `flash` and `air` are SecureSocket in Flash Player and in AIR, `browser` is
the browser of content in Ruffle, which connects to the port of `--port` through a WebSocket. Only Flash Player asks for
a policy. AIR takes TLS 1.2 at most, and only CBC suites; browsers take TLS 1.2 and newer.

With `--websocket` the probe asks for no policy. It asks for a WebSocket as the browser of a page with Ruffle does
(`browser`), once for each `--origin`. It listens for a second, sends a ping and closes; if it gets none, one connection
more finds out why. Where a finding speaks of browsers, Chromium 156 was tried against the same servers.

With `--rtmp` the probe asks for no policy either. It tries the ways to a media server: RTMP on 1935, 443 and 80, then
RTMPT on 80, or the one that the address names. A way works if RTMP's handshake comes back; with APP the probe sends
`connect` for this application too. Findings concern three clients: `flash` tries one way after the other, `ffmpeg` and
`rtmpdump` try the one of their URL. One connection more is opened for a tunnel whenever the last one was closed. What
breaks ffmpeg and rtmpdump was tried with versions 5.1 and 2.4 at the same gateways.
"""

_COLUMNS = 100  # tables and links excepted

# Problems that operators have, and the codes that report them.
PROBLEMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("A firewall drops port 843 silently", ("PB102",)),
    ("No NUL follows the policy, and the connection stays open", ("PB207",)),
    ("Typographic quotes and dashes, tags removed by a blog", ("FP109", "FP110", "FP116", "PB206")),
    ("The reply comes in several writes", ("PB212", "PB213")),
    ("A web server listens there, or a crossdomain.xml is expected to work", ("PB204", "FP103", "FP104")),
    ("Tests with telnet or `echo` are misleading", ("PB309",)),
    ("The server compares the request with one receive", ("PB303", "PB304")),
    ("The server reads 22 of the 23 bytes and closes", ("PB301", "PB302", "PB203", "PB315")),
    ("No permission to bind port 843", ("PB105",)),
    ("A proxy or a network drops the request", ("PB109", "PB202", "PB203", "PB206")),
    ("Only one side uses TLS", ("PB205", "PB501", "PB503", "PB504", "PB508")),
    ("A certificate was not renewed, or the server has not loaded the new one", ("PB511", "PB513", "PB518")),
    ("The certificate is for another name, or by a CA that clients do not know", ("PB514", "PB516", "PB517", "PB519")),
    ("Only the certificate is configured, without its chain", ("PB515", "PB521")),
    ("TLS is too modern for AIR and Flash Player, or too old for browsers", ("PB530", "PB531", "PB532", "PB520")),
    ("The TLS handshake fails", ("PB505", "PB506", "PB507", "PB509")),
    ("The port is not in `to-ports`, or `to-ports` is missing", ("PB403", "PB404", "FP401")),
    ("A policy from port 1024 or above grants lower ports", ("FP508", "FP509")),
    ("The policy grants an IP address and the content uses a name, or the reverse", ("PB403", "FP313")),
    ("`site-control` contradicts the grants", ("PB401", "PB402", "FP502", "FP503", "FP505", "FP506", "FP507")),
    ("Malformed XML", ("FP110",)),
    ("Wrong encodings, and the length prefix of Java's writeUTF", ("FP105", "FP106", "FP108", "FP113")),
    ("Wrong host or port", ("PB101", "PB105", "PB106", "PB107", "PB108", "PB111")),
    ("The server limits or bans the address of the prober", ("PB317", "PB318", "PB302")),
    ("The application behind a shared port is down", ("PB112", "PB107")),
    ("No deadlines, and servers that wait for a newline", ("PB201", "PB305", "PB306", "PB319", "PB313", "PB314")),
    ("A proxy drops the upgrade of a WebSocket", ("PB620", "PB621", "PB613")),
    ("The page with Ruffle is refused", ("PB622", "PB603", "PB623")),
    ("The URL in `socketProxy` is wrong", ("PB601", "PB604", "PB606", "PB607", "PB608", "PB621", "PB624")),
    ("Ruffle says connected, and then the connection ends", ("PB625", "PB640", "PB622", "PB642", "PB644")),
    ("A server of WebSockets that was written by hand", ("PB630", "PB631", "PB632", "PB633", "PB641", "PB642")),
    ("A media server is not reached", ("PB701", "PB702", "PB705", "PB706", "PB707", "PB711", "PB713")),
    ("Users of RTMP wait for a long time, or some are kept out", ("PB703", "PB704", "PB706", "PB712")),
    ("A web server or a page replies instead of a media server", ("PB710", "PB720", "PB721", "PB724")),
    ("RTMPT loses sessions", ("PB726", "PB731")),
    ("A proxy breaks RTMPT for some clients", ("PB730", "PB731", "PB732", "PB733", "PB734", "PB723", "PB728")),
    ("The gateway of RTMPT does not reach the media server", ("PB722", "PB727")),
    ("A gateway of RTMPT that was written by hand", ("PB734", "PB735", "PB736", "PB725", "PB721")),
    ("The application of a media server is refused", ("PB740", "PB741", "PB742", "PB743", "PB715")),
    (
        "The dialects of Flash and Silverlight are mixed up",
        ("PB316", "FP117", "FP511", "FP702", "FP806", "FP807", "FP811"),
    ),
)


def page() -> str:
    parts = [_wrap(_INTRODUCTION), "## Problems of operators\n", "| problem | codes |\n|---|---|"]
    parts += [f"| {what} | {', '.join(map(_link, codes))} |" for what, codes in PROBLEMS]
    parts.append("")
    for prefix, title in GROUPS.items():
        rules = [rule for rule in RULES if rule.code.startswith(prefix)]
        parts += [f"## {prefix}xx: {title}\n", "| code | severity | name | problem |\n|---|---|---|---|"]
        parts += [f"| {_link(rule.code)} | {_severity(rule)} | {rule.name} | {_words(rule.wrong)} |" for rule in rules]
        parts += ["", *map(_section, rules)]
    return "\n".join(parts)


def _wrap(text: str) -> str:
    """Wrap the paragraphs and list items of a Markdown text."""
    return "\n\n".join(
        "\n".join(
            fill(item, _COLUMNS, subsequent_indent="  " * item.startswith("- "), break_on_hyphens=False,
                 break_long_words=False)
            for item in re.split(r"\n(?=- )", paragraph)
        )
        for paragraph in text.rstrip().split("\n\n")
    ) + "\n"  # fmt: skip


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
    return _wrap(f"""### {rule.code} {rule.name}

{_severity(rule).capitalize()}; {", ".join(rule.clients)}.

Problem: {_words(rule.wrong)}.

Evidence: {_words(rule.seen)}.

Remedy: {_words(rule.instead)}.
""")


def _words(template: str) -> str:
    """Return a template as Markdown: text between backquotes is code and stays as it is."""
    parts = template.split("`")
    parts[::2] = [re.sub(r"([*<|])", r"\\\1", part) for part in parts[::2]]
    return re.sub(r"\{(\w+)\}", r"*\1*", "`".join(parts))
