"""Templates and files of the page. They are read when this is imported: later there may be no file system."""

import codecs
import hashlib
from collections.abc import Sequence
from importlib.resources import files

import jinja2.debug  # noqa: F401  # Jinja2 imports it when a template fails
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from flashpol.admin import decide, formatting, ruffle
from flashpol.admin.context import ListenerInfo
from flashpol.admin.history import Sample
from flashpol.admin.page import policy_view, rtmpt_view, status_view, tls_view, websocket_view
from flashpol.admin.page.chart import chart
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.admin.problems import Json

codecs.lookup("unicode-escape")  # Jinja2's lexer uses it, and Python loads it on first use
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Path below `/-/page/` -> media type and content.
FILES = {
    entry.name: (media_type, entry.read_bytes())
    for entry in files(__package__).iterdir()
    for suffix, media_type in MEDIA_TYPES.items()
    if entry.name.endswith(suffix)
}


def visible(value: object) -> object:
    """A value as a template shows it: characters that are invisible, or turn text around, become U+FFFD."""
    if isinstance(value, Markup):
        return value
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _environment() -> Environment:
    """Templates are compiled from memory on first use: all together take 0.1 s, for which no worker should wait."""
    folder = files(__package__) / "templates"
    sources = {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".html")}
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in ("count", "date_time", "duration", "percent", "rate", "size"):
        environment.filters[name] = getattr(formatting, name)
    environment.globals |= {
        "UNKNOWN": formatting.UNKNOWN,
        "share": formatting.share,
        "MAX_CONTENT": decide.MAX_CONTENT,
        "MAX_PORT": decide.MAX_PORT,
        "MAX_HOST": ruffle.MAX_HOST,
        "MAX_URL": ruffle.MAX_URL,
    }
    return environment


ENVIRONMENT = _environment()


def policy_version(listeners: Sequence[ListenerInfo]) -> str:
    """Of what the costly parts are made from: while it stays the same, so do they."""
    parts = (
        f"{each.listener}\0{each.address}\0{each.policy}\0{each.path}\0{each.dialect}\0{each.served_from}\0{each.sha256}"
        for each in listeners
    )
    return hashlib.sha256("\0\0".join(parts).encode(errors="replace")).hexdigest()[:16]


def render_page(
    status: Json, past: Sequence[Sample], listeners: Sequence[ListenerInfo], policies: Markup | None, websocket: bool
) -> bytes:
    """The whole page. Without `policies` the parts that are made from the policies stay empty. websocket: a listener
    has it."""
    return _rendered(
        "page.html",
        root="./",
        status=status,
        summary=status_view.Summary.of(status),
        chart=chart(past),
        latency=status_view.latency(status),
        outcomes=status_view.outcomes(status),
        upstreams=status_view.upstreams(status),
        tls=tls_view.tls(status),
        websockets=websocket_view.websockets(status),
        rtmpt=rtmpt_view.rtmpt(status),
        cpu_shares=status_view.cpu_shares(status),
        listeners=listeners,
        version=policy_version(listeners),
        policies=policies,
        websocket=websocket,
        query={},
        result=None,
        snippet=None,
    )


def render_policies(analyses: AnalysisCache) -> Markup:
    """All policies with their findings. Rendered once: the policies of an admin process never change."""
    cards = policy_view.policy_cards(analyses)
    more = len(analyses.groups) - len(cards)
    template = ENVIRONMENT.get_template("policies.html")
    return analyses.once(render_policies, lambda: Markup(template.render(cards=cards, more=more)))


def render_decision(listeners: Sequence[ListenerInfo], result: decide.DecideResult) -> bytes:
    """The form with its result, for browsers without JavaScript; the script takes the result out of it."""
    return _rendered(
        "decision.html",
        root="../",
        listeners=listeners,
        query=result.query,
        result=result,
        rows=policy_view.decision_rows(result.decisions, result.lines),
    )


def render_snippet(result: ruffle.RuffleResult) -> bytes:
    """The form with what a page needs for Ruffle."""
    return _rendered("snippet.html", root="../", query=result.query, snippet=result)


def _rendered(name: str, **values: object) -> bytes:
    return ENVIRONMENT.get_template(name).render(values).encode(errors="replace")
