"""PB60x to PB62x: whether a browser reaches a WebSocket, and the replies that refuse it one."""

from collections.abc import Iterator

from flashpol.probe.exchange import Reached
from flashpol.probe.findings.registry import BROWSER, ERROR, NOTE, WARNING, Hit, View, rule
from flashpol.probe.model import Role, Target
from flashpol.probe.reply import printable
from flashpol.probe.websocket import judgement
from flashpol.probe.websocket.judgement import Kind, obstacles, proxy_hint, quoted
from flashpol.probe.websocket.prober import OTHER_ORIGIN
from flashpol.probe.websocket.reply import Head
from flashpol.probe.websocket.upgrade import Upgrade, upgrade_of

# Seconds from the request to 101. A bridge to an application nearby takes milliseconds.
SLOW = 1.0


def targets(view: View) -> tuple[Target, ...]:
    return view.observation.all_targets(Role.WEBSOCKET)


def upgrades(view: View) -> Iterator[tuple[Target, Upgrade]]:
    """Yield each origin's connection at each address, where one was opened."""
    for target in targets(view):
        for origin in view.question.origins if target.asked.opened else ():
            if (exchange := judgement.asked_for(target, origin)) is not None and exchange.opened:
                yield target, upgrade_of(exchange)


def hindered(view: View, kind: Kind) -> Iterator[tuple[Target, Upgrade, judgement.Obstacle]]:
    """Yield what was hindered in this way, once for each address and wording."""
    seen = set()
    for target in targets(view):
        for origin in view.question.origins if target.asked.opened else ():
            exchange = judgement.asked_for(target, origin)
            if exchange is None or not exchange.opened:
                continue
            for obstacle in obstacles(exchange):
                if obstacle.kind is kind and (target.where, obstacle.words) not in seen:
                    seen.add((target.where, obstacle.words))
                    yield target, upgrade_of(exchange), obstacle


# ---------------------------------------------------------------------------------------------- before the browser asks

_FAILURES = {
    Reached.REFUSED: "refuses the connection",
    Reached.DROPPED: "does not answer the connection",
    Reached.UNREACHABLE: "cannot be reached",
}


def _unreached(view: View, *, all_of_them: bool) -> Iterator[Hit]:
    tried = [target for target in targets(view) if target.asked.reached is not Reached.UNTRIED]
    failed = [target for target in tried if target.asked.reached in _FAILURES]
    if (len(failed) == len(tried)) is all_of_them:
        for target in failed:
            yield Hit(target, target.asked.error, port=target.port, how=_FAILURES[target.asked.reached])


@rule(
    "PB601", ERROR, "no-connection",
    wrong="port {port} {how}: no page gets a WebSocket",
    instead="start the server of the WebSocket, open the port in the firewall, or correct the URL in `socketProxy`",
    seen="no address of the host accepts a connection", clients=BROWSER,
)  # fmt: skip
def no_connection(view: View) -> Iterator[Hit]:
    yield from _unreached(view, all_of_them=True)


@rule(
    "PB602", WARNING, "no-connection-at-address",
    wrong="port {port} {how} at this address, and accepts connections at another: browsers lose time, or fail",
    instead="let the server listen on this address too, or take it out of DNS",
    seen="one address of the host accepts a connection, and this one does not", clients=BROWSER,
)  # fmt: skip
def no_connection_at_address(view: View) -> Iterator[Hit]:
    yield from _unreached(view, all_of_them=False)


@rule(
    "PB603", ERROR, "mixed-content",
    wrong="browsers do not open {url} from pages of {origin}: a page on https gets no ws://",
    instead="write wss:// in `socketProxy`, and turn TLS on for the port (flashpol: `tls`)",
    seen="the origin has https, and the URL has ws and no loopback host; the browser then sends nothing",
    clients=BROWSER,
)  # fmt: skip
def mixed_content(view: View) -> Iterator[Hit]:
    for origin in view.question.origins:
        if view.question.websocket is not None and judgement.is_mixed(view.question.websocket, origin):
            yield Hit(None, "the console says `Mixed Content`", BROWSER, url=view.question.websocket, origin=origin)


@rule(
    "PB604", ERROR, "blocked-port",
    wrong="browsers connect to no port {port}: it is one that they block",
    instead="serve the WebSocket on another port, such as 443 or 8443; `socketProxy` leaves the content's own as it is",
    seen="the port is a `bad port` of the Fetch standard; Chromium says net::ERR_UNSAFE_PORT", clients=BROWSER,
)  # fmt: skip
def blocked_port(view: View) -> Iterator[Hit]:
    if view.question.websocket is not None and judgement.is_blocked(view.question.websocket):
        yield Hit(None, "net::ERR_UNSAFE_PORT", BROWSER, port=view.question.port)


@rule(
    "PB605", NOTE, "http-url",
    wrong="the URL has {scheme}: browsers before 2024 open WebSockets with ws and wss only",
    instead="write {url} in `socketProxy`",
    seen="the URL that is probed begins with http", clients=BROWSER,
)  # fmt: skip
def http_url(view: View) -> Iterator[Hit]:
    url = view.question.websocket
    if url is not None and url.scheme.startswith("http"):
        yield Hit(None, f"{url} was asked", BROWSER, scheme=url.scheme, url=url)


# ----------------------------------------------------------------------------------------------------- another protocol


@rule(
    "PB606", ERROR, "plain-websocket-only",
    wrong="port {port} speaks HTTP in plain text, and not TLS: wss:// finds nothing there",
    instead="turn TLS on for this port, or write {url}, if the page itself is not on https",
    seen="the TLS handshake fails, and the same request in plain text gets an HTTP reply", clients=BROWSER,
)  # fmt: skip
def plain_websocket_only(view: View) -> Iterator[Hit]:
    for target in targets(view):
        if target.serves_plainly and view.question.websocket is not None:
            evidence = f"in plain text: {quoted(upgrade_of(target.tried['plain'][0]))}"
            yield Hit(target, evidence, port=target.port, url=view.question.websocket.in_plain_text(True))


def _speaks_tls(target: Target) -> bool:
    return any(exchange.opened for exchange in target.tried.get("tls", ()))


@rule(
    "PB607", ERROR, "websocket-inside-tls",
    wrong="port {port} speaks TLS: ws:// finds nothing there",
    instead="write {url}",
    seen="the request in plain text gets no WebSocket, and a TLS handshake succeeds", clients=BROWSER,
)  # fmt: skip
def websocket_inside_tls(view: View) -> Iterator[Hit]:
    for target in targets(view):
        if _speaks_tls(target) and view.question.websocket is not None:
            evidence = f"inside TLS: {quoted(upgrade_of(target.tried['tls'][0]))}"
            yield Hit(target, evidence, port=target.port, url=view.question.websocket.in_plain_text(False))


def _without_tls(view: View, kind: Kind) -> Iterator[tuple[Target, Upgrade, judgement.Obstacle]]:
    """Yield as `hindered`, but nothing that PB607 explains."""
    for target, upgrade, obstacle in hindered(view, kind):
        if not _speaks_tls(target):
            yield target, upgrade, obstacle


@rule(
    "PB608", ERROR, "not-http",
    wrong="port {port} replies with {what}: no HTTP server listens there",
    instead="correct the port in `socketProxy`: it is that of the bridge, not the content's own; or turn WebSocket on"
    " for this port (flashpol: `websocket = true`)",
    seen="the bytes that come do not begin an HTTP reply", clients=BROWSER,
)  # fmt: skip
def not_http(view: View) -> Iterator[Hit]:
    for target, _, obstacle in _without_tls(view, Kind.NOT_HTTP):
        yield Hit(target, printable(target.asked.data), port=target.port, what=obstacle.detail)


@rule(
    "PB609", ERROR, "no-reply",
    wrong="port {port} accepts the connection and does not reply in {seconds} s",
    instead="correct the port or the path, or find out what the server waits for: its application, or a protocol that"
    " is not HTTP (flashpol hands paths for which it has no WebSocket to the application)",
    seen="the connection stays open, and no byte comes", clients=BROWSER,
)  # fmt: skip
def no_reply(view: View) -> Iterator[Hit]:
    for target, _, _ in _without_tls(view, Kind.SILENT):
        evidence = f"nothing came in {target.asked.ended:.1f} s"
        yield Hit(target, evidence, port=target.port, seconds=f"{view.question.timeouts.reply:g}")


@rule(
    "PB610", ERROR, "closed-unanswered",
    wrong="port {port} {how} the connection without a reply",
    instead="correct the port, or read the server's log: it does not take HTTP here (flashpol: `websocket = true`), or"
    " a limit keeps the prober out",
    seen="FIN or RST comes after the request, and no byte before it", clients=BROWSER,
)  # fmt: skip
def closed_unanswered(view: View) -> Iterator[Hit]:
    for target, _, obstacle in _without_tls(view, Kind.CLOSED):
        yield Hit(target, f"{target.asked.end} after {target.asked.ended:.2f} s", port=target.port, how=obstacle.detail)


@rule(
    "PB611", ERROR, "unreadable-reply",
    wrong="port {port} replies with {how}",
    instead="correct the program that writes it: a status line, fields and an empty line, each with CRLF at its end",
    seen="the reply begins as HTTP, and is not complete when the connection or the time ends", clients=BROWSER,
)  # fmt: skip
def unreadable_reply(view: View) -> Iterator[Hit]:
    for target, _, obstacle in hindered(view, Kind.INCOMPLETE):
        yield Hit(target, printable(target.asked.data, 120), port=target.port, how=obstacle.detail)


@rule(
    "PB612", WARNING, "malformed-reply",
    wrong="the head of the reply breaks RFC 9112: {what}",
    instead="correct the program that writes it: some browsers and proxies refuse such a reply",
    seen="a line that does not end with CRLF, a continued field, a blank before a colon, a control character",
    clients=BROWSER,
)  # fmt: skip
def malformed_reply(view: View) -> Iterator[Hit]:
    for target, head in _heads(view):
        if head.flaws:
            yield Hit(target, printable(target.asked.data, 120), what=head.flaws[0])


@rule(
    "PB613", WARNING, "old-http",
    wrong="the reply has {version}, which knows no upgrade",
    instead="let the server, or the proxy that writes this reply, speak HTTP/1.1",
    seen="the status line does not begin with HTTP/1.1", clients=BROWSER,
)  # fmt: skip
def old_http(view: View) -> Iterator[Hit]:
    for target, head in _heads(view):
        if head.version != "HTTP/1.1":
            yield Hit(target, f"{head.version} {head.line}", version=head.version)


def _heads(view: View) -> Iterator[tuple[Target, Head]]:
    """Yield the head that the first origin got at each address."""
    for target in targets(view):
        if target.asked.opened and (head := upgrade_of(target.asked).head) is not None:
            yield target, head


# ------------------------------------------------------------------------------------------------------------- refusals


@rule(
    "PB620", ERROR, "no-upgrade",
    wrong="port {port} replies {status} instead of 101: {why}",
    instead="{remedy}",
    seen="the status is one of 200 to 299, 400, 405, 426 or 501, or the body of 404 speaks of an upgrade",
    clients=BROWSER,
)  # fmt: skip
def no_upgrade(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in _without_tls(view, Kind.NO_UPGRADE):
        if upgrade.head is None:
            continue
        dropped = upgrade.head.status == 426
        why = "the request for an upgrade did not arrive there" if dropped else "it saw no request for an upgrade, or"
        why += "" if dropped else " has no WebSocket at this path"
        remedy = proxy_hint(upgrade.head) or (
            "find the proxy on the way that drops Upgrade and Connection, and let it pass them on; without a proxy,"
            " correct the path"
        )
        evidence = f"{quoted(upgrade)}{_without_upgrade(target, upgrade.head)}"
        yield Hit(target, evidence, port=target.port, status=obstacle.detail, why=why, remedy=remedy)


def _without_upgrade(target: Target, head: Head) -> str:
    for exchange in target.tried.get("without Upgrade", ()):
        other = upgrade_of(exchange).head
        if other is not None:
            same = "the same" if other.status == head.status else other.line
            return f"; a GET without Upgrade gets {same}"
    return ""


@rule(
    "PB621", ERROR, "no-such-path",
    wrong="port {port} has nothing at {path}: {status}",
    instead="correct the path in `socketProxy`, which counts exactly; if it is right, a proxy may have dropped the"
    " upgrade{hint}",
    seen="the status is 404 or 410", clients=BROWSER,
)  # fmt: skip
def no_such_path(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.NOT_FOUND):
        if upgrade.head is not None and view.question.websocket is not None:
            hint = proxy_hint(upgrade.head)
            evidence = f"{quoted(upgrade)}{_without_upgrade(target, upgrade.head)}"
            yield Hit(
                target, evidence, port=target.port, path=view.question.websocket.target, status=obstacle.detail,
                hint=f": {hint}" if hint else "",
            )  # fmt: skip


@rule(
    "PB622", ERROR, "origin-refused",
    wrong="pages of {origin} get no WebSocket: {status}{reason}",
    instead="allow {origin} on the server, or correct --origin: it is the origin of the page that has Ruffle (flashpol:"
    " grant its host in the policy, or write it into `origins`; `flashpol decide` says which line decides)",
    seen="the status is 403", clients=BROWSER,
)  # fmt: skip
def origin_refused(view: View) -> Iterator[Hit]:
    for target, upgrade in upgrades(view):
        if upgrade.head is not None and upgrade.head.status == 403:
            reason = f": {upgrade.words}" if upgrade.words else ""
            yield Hit(target, quoted(upgrade), origin=upgrade.origin, status=upgrade.head.line, reason=reason)


@rule(
    "PB623", ERROR, "authentication",
    wrong="port {port} wants a password: {status}",
    instead="let the path of the WebSocket through without one: Ruffle has none to give, and no dialog appears",
    seen="the status is 401 or 407", clients=BROWSER,
)  # fmt: skip
def authentication(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.AUTHENTICATION):
        yield Hit(target, quoted(upgrade), port=target.port, status=obstacle.detail)


@rule(
    "PB624", ERROR, "redirect",
    wrong="port {port} redirects, and a WebSocket does not follow: {status}",
    instead="write {location} in `socketProxy`",
    seen="the status is one of 300 to 399", clients=BROWSER,
)  # fmt: skip
def redirect(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.REDIRECT):
        place = upgrade.head.get("location") if upgrade.head is not None else ""
        location = f"ws{place.removeprefix('http')}" if place.startswith("http") else place or "the final place"
        yield Hit(
            target, f"{quoted(upgrade)}; Location: {place or 'none'}", port=target.port, status=obstacle.detail,
            location=location,
        )  # fmt: skip


@rule(
    "PB625", ERROR, "application-not-reached",
    wrong="port {port} does not reach the application: {status}{reason}",
    instead="start the application, or correct its address in the server or the proxy that writes this reply; 503 may"
    " be a limit",
    seen="the status is 502, 503 or 504", clients=BROWSER,
)  # fmt: skip
def application_not_reached(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.UPSTREAM):
        reason = f": {upgrade.words}" if upgrade.words else ""
        yield Hit(target, quoted(upgrade), port=target.port, status=obstacle.detail, reason=reason)


@rule(
    "PB626", ERROR, "request-timed-out",
    wrong="port {port} says that the request took too long, which came at once: {status}",
    instead="look for a proxy that holds the request back, and for a server that waits for a body",
    seen="the status is 408", clients=BROWSER,
)  # fmt: skip
def request_timed_out(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.LATE):
        yield Hit(target, quoted(upgrade), port=target.port, status=obstacle.detail)


@rule(
    "PB627", ERROR, "other-version",
    wrong="port {port} speaks another version of WebSocket than 13: {versions}",
    instead="update the server: browsers have sent 13 since 2012",
    seen="the refusal has a Sec-WebSocket-Version without 13", clients=BROWSER,
)  # fmt: skip
def other_version(view: View) -> Iterator[Hit]:
    for target, upgrade, _ in hindered(view, Kind.VERSION):
        versions = upgrade.head.get("sec-websocket-version") if upgrade.head is not None else ""
        yield Hit(target, quoted(upgrade), port=target.port, versions=versions)


@rule(
    "PB628", ERROR, "refused-otherwise",
    wrong="port {port} replies {status} instead of 101",
    instead="read the log of the program that writes this reply; 429 is a limit, 421 and 5xx are often a proxy's",
    seen="the status is another one", clients=BROWSER,
)  # fmt: skip
def refused_otherwise(view: View) -> Iterator[Hit]:
    for target, upgrade, obstacle in hindered(view, Kind.STATUS):
        yield Hit(target, quoted(upgrade), port=target.port, status=obstacle.detail)


@rule(
    "PB629", NOTE, "any-origin",
    wrong="port {port} opens a WebSocket for every page of the web",
    instead="nothing, if the application is for everybody; otherwise let the server compare Origin (flashpol:"
    ' `origins = "policy"`, with a policy that names the pages)',
    seen="the origin https://flashpol-probe.invalid gets 101", clients=BROWSER, thorough=True,
)  # fmt: skip
def any_origin(view: View) -> Iterator[Hit]:
    for target in targets(view):
        for exchange in target.tried.get("another origin", ()):
            if upgrade_of(exchange).opened:
                yield Hit(target, f"{OTHER_ORIGIN}: {quoted(upgrade_of(exchange))}", port=target.port)
