"""Each policy that is served, what lint finds in it, and who may connect by it."""

from collections.abc import Sequence

from flashpol.admin.context import ListenerInfo
from flashpol.admin.page.formatting import count, size
from flashpol.admin.page.markup import Markup, el, join
from flashpol.admin.policy_analysis import Library, Reading
from flashpol.policy import Decision, Finding

# A policy may have a megabyte and thousands of findings; a page shows the beginning and says where the rest is.
SHOWN_LINES, SHOWN_CHARACTERS, SHOWN_FINDINGS = 400, 20_000, 50
# A thousand listeners may each have a port of their own, with findings of their own.
SHOWN_POLICIES = 50
# A line that decides may be the whole file.
SHOWN_OF_LINE = 200
# What `/-/decide` takes of a question: the library's bound of a URL, and a number's.
LONGEST_CONTENT, LONGEST_PORT = 2048, 5

CLIENT_NAMES = {
    "flash": "Flash Player",
    "lightspark": "Lightspark",
    "unity": "Unity Web Player",
    "silverlight": "Silverlight",
}
KINDS = {"error": "bad", "warning": "fair", "note": "plain"}


def groups(facts: Sequence[ListenerInfo]) -> list[list[ListenerInfo]]:
    """Listeners that serve the same from the same port, so that it is shown once."""
    found: dict[object, list[ListenerInfo]] = {}
    for each in facts:
        found.setdefault((each.policy, each.reply, each.dialect, each.served_from), []).append(each)
    return list(found.values())


def policies(facts: Sequence[ListenerInfo], library: Library) -> Markup:
    """Rendered once: what is served stays the same as long as the admin process."""
    found = groups(facts)
    known = [
        (group, library.read(group[0].listener), library.findings(group[0].listener))
        for group in found[:SHOWN_POLICIES]
    ]
    return library.once(policies, lambda: _cards(known, len(found) - len(known)))


def _cards(known: Sequence[tuple[Sequence[ListenerInfo], Reading, Sequence[Finding]]], more: int) -> Markup:
    return join(
        *(_card(number, *each) for number, each in enumerate(known, 1)),
        el("p", f"… and {count(more)} more: flashpol check --served-from PORT says what is in them.") if more else "",
    )


def _card(number: int, group: Sequence[ListenerInfo], reading: Reading, findings: Sequence[Finding]) -> Markup:
    first, name = group[0], f"policy-{number}"
    places = ", ".join(dict.fromkeys(_place(each) for each in group))
    facts = {
        "Served on": el("bdi", places),
        "Dialect": first.dialect,
        "Reply": f"{size(len(first.reply))}" + (", its NUL included" if first.reply.endswith(b"\0") else ""),
        "SHA-256": el("code", first.sha256),
    }
    return el(
        "article",
        el("h3", el("bdi", first.policy), id=name),
        el("dl", *(el("div", el("dt", term), el("dd", value)) for term, value in facts.items()), class_="facts"),
        _findings(findings),
        _text(reading, first, name),
        aria_labelledby=name,
    )


def _place(facts: ListenerInfo) -> str:
    """A listener without a name is called by its address."""
    return facts.address if facts.listener == facts.address else f"{facts.listener} ({facts.address})"


def _findings(found: Sequence[Finding]) -> Markup:
    if not found:
        return el("p", el("span", "no findings", class_="badge good"))
    more = len(found) - SHOWN_FINDINGS
    return join(
        el("h4", f"{count(len(found))} finding{'s' if len(found) != 1 else ''}"),
        el("ul", *map(_finding, found[:SHOWN_FINDINGS]), class_="findings"),
        el("p", f"… and {count(more)} more: flashpol check shows all.") if more > 0 else "",
    )


def _finding(each: Finding) -> Markup:
    return el(
        "li",
        el("p", el("span", each.severity.value, class_=f"badge {KINDS[each.severity.value]}"), " ",
           el("code", each.code), f" {each.message}; {each.instead} ", el("span", f"({', '.join(each.clients)})",
                                                                         class_="quiet")),
        _excerpt(f"Line {each.line}, column {each.column}", each.excerpt()),
    )  # fmt: skip


def _excerpt(place: str, shown: str) -> Markup:
    return el(
        "figure",
        el("figcaption", place, class_="quiet"),
        el("pre", shown, tabindex=0, role="group", aria_label=place),
        class_="excerpt",
    )


def _text(reading: Reading, facts: ListenerInfo, name: str) -> Markup:
    lines = reading.lines[:-1] if len(reading.lines) > 1 and not reading.lines[-1] else reading.lines
    shown, room = [], SHOWN_CHARACTERS
    for line in lines[:SHOWN_LINES]:
        shown.append(line[:room])
        room -= len(shown[-1]) + 1
        if room <= 0:
            break
    cut = sum(map(len, shown)) < sum(map(len, lines))
    written = (el("span", line, "\n", class_="line") for line in shown)
    return el(
        "details",
        el("summary", f"The policy, {count(len(lines))} line{'s' if len(lines) != 1 else ''}"),
        el("pre", *written, class_="source", tabindex=0, role="group",
           aria_label=f"Text of the policy {facts.policy}"),
        el("p", "… this is its beginning only.") if cut else "",
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- the form


def form(facts: Sequence[ListenerInfo], root: str, asked: dict[str, str] | None = None, result: object = "") -> Markup:
    """A question and its answer. `root`: from this page to `/`; `asked`: what was filled in."""
    asked = asked or {}
    options = (
        el("option", f"{each.listener} ({each.policy})", value=each.listener,
           selected=each.listener == asked.get("listener"))
        for each in facts
    )  # fmt: skip
    return join(
        el(
            "form",
            _field("listener", "Listener", el("select", *options, id="listener", name="listener")),
            _field(
                "from",
                "Content loaded from (URL or domain)",
                el("input", id="from", name="from", required=True, maxlength=LONGEST_CONTENT, value=asked.get("from"),
                   placeholder="http://www.example.com/game.swf", autocomplete="off", autocapitalize="none",
                   spellcheck="false"),
            ),
            _field(
                "port",
                "To port",
                el("input", id="port", name="port", required=True, maxlength=LONGEST_PORT, value=asked.get("port"),
                   inputmode="numeric", pattern="[0-9]{1,5}", title="a number from 1 to 65535", autocomplete="off",
                   placeholder="1935"),
            ),
            el("button", "May it connect?"),
            action=f"{root}-/decide#answer",
            id="decide",
        ),
        el("div", result, id="answer", aria_live="polite"),
    )  # fmt: skip


def _field(name: str, label: str, field: Markup) -> Markup:
    return el("p", el("label", label, for_=name), field)


def answer(decisions: Sequence[Decision], lines: Sequence[str], question: str) -> Markup:
    return join(el("h3", question), el("ul", *(_decision(each, lines) for each in decisions), class_="decisions"))


def _decision(each: Decision, lines: Sequence[str]) -> Markup:
    badge = el("span", "allowed" if each.allowed else "denied", class_=f"badge {'good' if each.allowed else 'bad'}")
    words = [f"It says: {line}" for line in each.client_words.split("\n") if line]
    return el(
        "li",
        el("p", el("strong", CLIENT_NAMES[each.client]), " ", badge),
        el("p", each.reason),
        _excerpt(f"Line {each.line}", _shown_line(lines[each.line - 1], each.column)) if each.line else "",
        *(el("p", line, class_="quiet") for line in words),
    )


def _shown_line(line: str, column: int | None) -> str:
    start = max(0, (column or 1) - 1 - SHOWN_OF_LINE // 2) if len(line) > SHOWN_OF_LINE else 0
    part = line[start : start + SHOWN_OF_LINE]
    return f"{'…' if start else ''}{part.strip()}{'…' if start + SHOWN_OF_LINE < len(line) else ''}"


def refused(why: str) -> Markup:
    """The question was none."""
    return el("p", el("span", "not a question", class_="badge fair"), f" {why}")
