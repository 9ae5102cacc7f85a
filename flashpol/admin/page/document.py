"""The whole page, and the files it needs. They are read when this is imported: later there may be no file system."""

import hashlib
from collections.abc import Sequence
from importlib.resources import files

from flashpol.admin.context import ListenerInfo
from flashpol.admin.history import Sample
from flashpol.admin.page import chart, overview, tables
from flashpol.admin.page.formatting import UNKNOWN, rate
from flashpol.admin.page.markup import Markup, el, join
from flashpol.admin.page.policies import form, policies
from flashpol.admin.policy_analysis import Library
from flashpol.admin.status import Json

KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Path below `/-/page/` -> kind and content.
FILES = {
    entry.name: (kind, entry.read_bytes())
    for entry in files(__package__).iterdir()
    for suffix, kind in KINDS.items()
    if entry.name.endswith(suffix)
}

LINKS = {"-/status": "status as JSON", "metrics": "metrics", "-/ready": "ready?", "-/healthy": "healthy?"}


def _document(root: str, title: str, *body: object, script: bool = False) -> bytes:
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href=f"{root}-/page/icon.svg"),
        el("link", rel="stylesheet", href=f"{root}-/page/style.css"),
        el("script", type="module", src=f"{root}-/page/live.js") if script else "",
    )
    return f"<!doctype html>{el('html', head, el('body', *body), lang='en')}\n".encode()


def version(facts: Sequence[ListenerInfo]) -> str:
    """Of what the costly parts are made of: as long as it is the same, so are they."""
    parts = (
        f"{each.listener}\0{each.address}\0{each.policy}\0{each.dialect}\0{each.served_from}\0{each.sha256}"
        for each in facts
    )
    return hashlib.sha256("\0\0".join(parts).encode(errors="replace")).hexdigest()[:16]


def page(status: Json, past: Sequence[Sample], facts: Sequence[ListenerInfo], library: Library | None) -> bytes:
    """All of it. Without a library the parts that it is needed for are left empty, as the browser has them."""
    now, same = status["now"], version(facts)
    title = f"{rate(now['replies'], now['seconds']) if now else UNKNOWN} answers/s – flashpol"
    main = el(
        "main",
        overview.attention(status),
        el("section", el("h2", "Now", id="now"), overview.tiles(status), aria_labelledby="now"),
        el("section", el("h2", "Answers per second", id="answers"), chart.answers(past), aria_labelledby="answers"),
        el("div", tables.latency(status), tables.endings(status), class_="beside"),
        tables.listeners(status),
        tables.upstreams(status),
        tables.workers(status),
        _kept("questions", "May it connect?", same, form(facts, "./") if library else ""),
        _kept("policies", "Policies", same, policies(facts, library) if library else ""),
        overview.reload(status),
    )
    lost = el("p", role="alert", id="lost", hidden=True, data_version="lost")
    return _document("./", title, overview.header(status), lost, main, _footer("./"), script=True)


def _kept(name: str, title: str, same: str, body: Markup | str) -> Markup:
    """A part that the browser leaves alone as long as its version is the same."""
    return el("section", el("h2", title, id=name), body, aria_labelledby=name, data_version=f"{name}-{same}")


def _footer(root: str) -> Markup:
    links = (el("li", el("a", words, href=f"{root}{path}")) for path, words in LINKS.items())
    return el("footer", el("nav", el("ul", *links), aria_label="Also here"))


def question_page(facts: Sequence[ListenerInfo], asked: dict[str, str], result: object) -> bytes:
    """The form with its answer, for browsers without JavaScript."""
    main = el("main", el("section", form(facts, "../", asked, result)))
    header = el("header", el("h1", "May it connect?"), el("p", el("a", "back to all figures", href="../")))
    return _document("../", "May it connect? – flashpol", join(header, main, _footer("../")))
