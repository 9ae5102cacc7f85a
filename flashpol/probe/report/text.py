"""The report for people: timelines, the clients' conclusions, the findings with their evidence."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from flashpol.probe.client_models import Conclusion
from flashpol.probe.exchange import End, Event, Exchange, What
from flashpol.probe.findings import Finding
from flashpol.probe.findings.registry import Severity
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import NUL, printable
from flashpol.probe.report import Result, counted, title
from flashpol.probe.report.rtmp import described as described_rtmp
from flashpol.probe.report.rtmp import ends_by_the_probe
from flashpol.probe.report.secure import described as described_tls
from flashpol.probe.report.websocket import described as described_websocket
from flashpol.probe.tls.judgement import refusal
from flashpol.probe.websocket.upgrade import upgrade_of

Paint = Callable[[str, str], str]

COLOURS = {Severity.ERROR: "31;1", Severity.WARNING: "33;1", Severity.NOTE: "36"}
_GOOD, _BAD, _BOLD, _DIM = "32;1", "31;1", "1", "2"
_MIN_COLUMNS = 60  # narrower terminals break the lines themselves
_MAX_LINES = 12  # of one connection: a reply in hundreds of pieces is not shown piece by piece

_ROLES = {
    Role.MASTER: "asked first",
    Role.LOCATION: "named by the content",
    Role.DESTINATION: "the application's own",
    Role.SILVERLIGHT: "Silverlight's",
    Role.SILVERLIGHT_HTTP: "Silverlight's, over HTTP",
    Role.WEBSOCKET: "a WebSocket",
    Role.ELSEWHERE: "asked by no client",
}
_DESCRIBED = {"policy": described_tls, "websocket": described_websocket, "rtmp": described_rtmp}
_ENDS = {
    End.CLOSED: "closed by the server",
    End.RESET: "reset by the server",
    End.OPEN: "still open at the time-out",
    End.FLOOD: "too many bytes; reading stopped",
    End.ABORTED: "given up",
}


def report(result: Result, paint: Paint, columns: int | None = None) -> str:
    """Return the report on one host, in lines of at most `columns` characters (but never less than 60)."""
    width = None if columns is None else max(columns, _MIN_COLUMNS)
    lines = [f"{paint(clean(result.host), _BOLD)}: {title([result])}"]
    described = _DESCRIBED[result.observation.question.what]
    for address, targets in result.observation.targets.items():
        lines += ["", paint(f"{address}", _BOLD)]
        for target in targets:
            lines += timeline(target, paint, width, [clean(line) for line in described(target, result.observation)])
        of_address = [conclusion for conclusion in result.conclusions if conclusion.address == address]
        lines += ["", *(line for conclusion in of_address for line in verdict(conclusion, paint, width))]
    if result.observation.left_out:
        lines += ["", f"{counted(result.observation.left_out, 'address')} more were not asked"]
    for finding, where in grouped(result.findings):
        lines += ["", *shown(finding, where, paint, width)]
    made = counted(result.observation.connections, "connection")
    lines += ["", paint(f"{made} in {result.observation.seconds:.1f} s", _DIM)]
    return "\n".join(lines)


def clean(text: str) -> str:
    """Return text from outside as one line without terminal control characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def folded(text: str, columns: int | None, indent: int) -> Iterator[str]:
    """Wrap `text` into lines, and indent all but the first."""
    if columns is None or len(text) <= columns:
        yield text
        return
    import textwrap  # used for terminals only

    yield from textwrap.wrap(text, columns, subsequent_indent=" " * indent, break_on_hyphens=False)


def timeline(target: Target, paint: Paint, columns: int | None, more: Sequence[str] = ()) -> Iterator[str]:
    """Yield what happened at a target, and `more` lines about it."""
    role = f"({_role(target)}{', inside TLS' if target.secure else ''})"
    yield f"  port {target.port} {paint(role, _DIM)}"
    lines = list(happened(target.asked, rtmp=target.way is not None))
    cut = len(lines) > _MAX_LINES
    for at, what in lines[: _MAX_LINES - 2] if cut else lines:
        yield from folded(f"    {at:7.3f} s  {what}", columns, 15)
    if cut:
        yield f"               … {len(lines) - _MAX_LINES + 1:,} lines more"
        yield from folded("    {:7.3f} s  {}".format(*lines[-1]), columns, 15)
    for line in more:
        yield from folded(f"               {line}", columns, 17)
    if target.tried:
        tried = ", ".join(f"{name} {len(exchanges)}" for name, exchanges in target.tried.items())
        yield from (paint(line, _DIM) for line in folded(f"               also tried: {tried}", columns, 17))


def _role(target: Target) -> str:
    if target.way is None:
        return _ROLES[target.role]
    return target.way.scheme.upper() if target.port == target.way.port else f"a proxy, for {target.way}"


def happened(exchange: Exchange, *, rtmp: bool = False) -> Iterator[tuple[float, str]]:
    """Yield time and words for each event of a connection, which may be one to a media server."""
    if exchange.end is None:
        yield exchange.ended, clean(f"{exchange.reached}: {exchange.error}")
    for event in exchange.events:
        by_us = rtmp and event.what is What.ENDED and exchange.end is End.OPEN and ends_by_the_probe(exchange)
        yield event.at, "closed by the probe" if by_us else _words(event, exchange)


def _words(event: Event, exchange: Exchange) -> str:
    size = counted(len(event.data), "byte")
    match event.what:
        case What.SENT:
            return f"sent {size}: {printable(event.data, 40)}"
        case What.RECEIVED:
            end = ", the last a NUL" if event.data.endswith(NUL) else ""
            return f"received {size}{end}: {printable(event.data, 40)}"
        case What.ENDED:
            return _end(exchange)
        case What.SECURED:
            return exchange.tls.words if exchange.tls is not None else ""
        case What.FINISHED:
            return "closed the sending side"
        case _:
            return "connected"


def _end(exchange: Exchange) -> str:
    end, handshake = exchange.end or End.OPEN, exchange.tls
    if end is End.OPEN and upgrade_of(exchange).origin and upgrade_of(exchange).head is not None:
        return "closed by the probe"
    if handshake is None:
        return _ENDS[end]
    if not handshake.completed:
        return f"the server {refusal(exchange)}"
    if end is End.CLOSED and handshake.close_notify is not None:
        return f"{_ENDS[end]}, {'after' if handshake.close_notify else 'without'} close_notify"
    if end is End.OPEN and not any(event.what is What.SENT for event in exchange.events):
        return "closed by the probe: the clients that matter ask for no policy"
    return _ENDS[end]


def verdict(conclusion: Conclusion, paint: Paint, columns: int | None) -> Iterator[str]:
    colour = {True: _GOOD, False: _BAD, None: _BOLD}[conclusion.connects]
    yield f"  {conclusion.client:<11} {paint(conclusion.verdict, colour)}, {conclusion.wait}"
    yield from folded(f"              {clean(conclusion.sentence)}", columns, 14)


def grouped(findings: tuple[Finding, ...]) -> Iterator[tuple[Finding, list[str]]]:
    """Merge equal findings about several targets: yield each finding with its places."""

    def said(finding: Finding) -> tuple[str, ...]:
        return finding.code, finding.message, finding.evidence if finding.policy else ""

    for _, group in groupby(findings, key=said):
        alike = list(group)
        yield alike[0], [finding.where for finding in alike if finding.where]


def shown(finding: Finding, targets: list[str], paint: Paint, columns: int | None) -> Iterator[str]:
    colour = COLOURS[finding.severity]
    label = f"{finding.severity} {finding.code}"
    first, *more = folded(f"{label} {finding.name}: {clean(finding.message)}", columns, 2)
    yield paint(label, colour) + first.removeprefix(label)
    yield from more
    if targets:
        yield from folded(f"  at:   {', '.join(targets)}", columns, 8)
    yield from folded(f"  seen: {clean(finding.evidence)}", columns, 8)
    if finding.policy is not None and finding.policy.source:
        margin = None if columns is None else columns - 8
        yield from (f"        {line}" for line in finding.policy.excerpt(margin).split("\n"))
    yield from folded(f"  do:   {clean(finding.instead)} [{', '.join(finding.clients)}]", columns, 8)
