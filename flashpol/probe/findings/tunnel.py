"""PB72x to PB74x: RTMPT, what proxies make of it, and the reply to `connect`."""

from collections.abc import Iterator

from flashpol.probe.findings.registry import ERROR, NOTE, RTMP_CLIENTS, WARNING, Hit, View, rule
from flashpol.probe.findings.rtmp import attempts, hindered
from flashpol.probe.model import Target
from flashpol.probe.reply import printable
from flashpol.probe.rtmp import judgement
from flashpol.probe.rtmp.attempt import Attempt, Kind, Outcome
from flashpol.probe.rtmp.judgement import hint, quoted

_FFMPEG, _RTMPDUMP = "ffmpeg", "rtmpdump"

# ---------------------------------------------------------------------------------------------------------- no session


@rule(
    "PB720", WARNING, "no-tunnel-there",
    wrong="{way} reaches a web server that knows no RTMPT: it replies to /open with {line}",
    instead="let it pass the paths /open, /send, /idle, /close and /fcs on to the media server{hint}, or turn RTMPT on"
    " (flashpol: `rtmpt = true`)",
    seen="the status is not 200, and none of those below", clients=RTMP_CLIENTS,
)  # fmt: skip
def no_tunnel_there(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.NO_TUNNEL):
        if not judgement.refused_by_proxy(tried.head, view.question.rtmp):
            yield Hit(target, quoted(tried), way=target.way, line=obstacle.detail, hint=_colon(hint(tried)))


@rule(
    "PB728", WARNING, "proxy-refuses",
    wrong="{way}: a proxy refuses it: it replies to /open with {line}",
    instead="let the proxy allow POST to this host and port: its log, or the page that it sends, names the rule",
    seen="the status is 400, 403, 405 or 501 and --proxy is given, or the reply has X-Squid-Error",
    clients=RTMP_CLIENTS,
)  # fmt: skip
def proxy_refuses(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.NO_TUNNEL):
        if judgement.refused_by_proxy(tried.head, view.question.rtmp):
            yield Hit(target, quoted(tried), way=target.way, line=obstacle.detail)


def _colon(words: str) -> str:
    return f": {words}" if words else ""


@rule(
    "PB721", WARNING, "no-session-id",
    wrong="{way} replies to /open with {what} instead of a session id, which players take for one",
    instead="let the web server pass the paths of RTMPT on to the media server{hint}, or reply with 404: a page with"
    " status 200 for every path, or of a proxy's login, misleads clients",
    seen="the status is 200, and the body is empty, a page, or longer than 31 characters", clients=RTMP_CLIENTS,
)  # fmt: skip
def no_session_id(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.SESSION_ID):
        body = tried.replies[0].body
        evidence = f"{quoted(tried)}; the body is {printable(body)}"
        yield Hit(target, evidence, way=target.way, what=obstacle.detail, hint=_colon(hint(tried)))


@rule(
    "PB722", WARNING, "server-not-reached",
    wrong="{way} does not reach the media server: {line} to /open",
    instead="start the media server, or correct its address in the gateway or the proxy that writes this reply; 503 may"
    " be a limit",
    seen="the status is 502, 503 or 504", clients=RTMP_CLIENTS,
)  # fmt: skip
def server_not_reached(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.UPSTREAM):
        yield Hit(target, quoted(tried), way=target.way, line=obstacle.detail)


@rule(
    "PB723", WARNING, "tunnel-password",
    wrong="{way} wants a password: {line}",
    instead="let the paths of RTMPT through without one; at a proxy that requires it (407), Flash Player in a browser"
    " uses the browser's, and ffmpeg and rtmpdump have none",
    seen="the status is 401 or 407", clients=RTMP_CLIENTS,
)  # fmt: skip
def tunnel_password(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.PASSWORD):
        yield Hit(target, quoted(tried), way=target.way, line=obstacle.detail)


@rule(
    "PB724", WARNING, "tunnel-redirect",
    wrong="{way} is redirected, and no client of RTMPT follows: {line}",
    instead="exempt the paths of RTMPT from the redirect; where it leads to https, content has to write rtmps://",
    seen="the status is one of 300 to 399", clients=RTMP_CLIENTS,
)  # fmt: skip
def tunnel_redirect(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.REDIRECT):
        place = tried.head.get("location") if tried.head is not None else ""
        evidence = f"{quoted(tried)}; Location: {place or 'none'}"
        yield Hit(target, evidence, way=target.way, line=obstacle.detail)


@rule(
    "PB725", WARNING, "unreadable-http",
    wrong="{way} replies with HTTP that has no end, or that cannot be read",
    instead="correct the program that writes it: a status line, fields, an empty line and Content-Length",
    seen="the reply to /open begins as HTTP, and is not complete when the connection or the time ends",
    clients=RTMP_CLIENTS,
)  # fmt: skip
def unreadable_http(view: View) -> Iterator[Hit]:
    for target, _, _ in hindered(view, Kind.UNREADABLE):
        yield Hit(target, printable(target.asked.data, 120), way=target.way)


@rule(
    "PB726", WARNING, "session-lost",
    wrong="{way} opens a session, and the next request does not find it: {what} to /{command}",
    instead="if several servers or workers share this port, route all requests of a session to the one that opened it:"
    " by the id in the path, not by the connection or the address (flashpol finds them by itself, and between hosts by"
    " the first character: `host`)",
    seen="/open brings an id, and a later request gets another status than 200, or no reply", clients=RTMP_CLIENTS,
)  # fmt: skip
def session_lost(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.LOST):
        lost = next(trip for trip in tried.trips[1:] if trip.reply is None or not trip.reply.found)
        over = f"connection {lost.connection + 1}, request {tried.trips.index(lost) + 1}"
        yield Hit(target, over, way=target.way, what=obstacle.detail, command=lost.request.command)


@rule(
    "PB727", WARNING, "no-handshake",
    wrong="{way} opens a session, and RTMP's handshake does not come through it: {what}",
    instead="correct the address behind the gateway: something else than a media server may listen there; then look for"
    " a proxy that keeps replies back",
    seen="the id is right, the polls are served, and S0, S1 and S2 do not come", clients=RTMP_CLIENTS,
)  # fmt: skip
def no_handshake(view: View) -> Iterator[Hit]:
    for target, tried, obstacle in hindered(view, Kind.NO_HANDSHAKE):
        came = b"".join(trip.carried for trip in tried.trips)
        evidence = (
            f"{len(tried.trips)} requests in {tried.seconds:.1f} s brought {printable(came) if came else 'nothing'}"
        )
        yield Hit(target, evidence, way=target.way, what=obstacle.detail)


# -------------------------------------------------------------------------------------- sessions that some clients lose


def _tunnels(view: View) -> Iterator[tuple[Target, Attempt]]:
    for target, tried in attempts(view):
        if len(tried.trips) > 1 and (tried.obstacle is None or tried.obstacle.kind is not Kind.SESSION_ID):
            yield target, tried


@rule(
    "PB730", WARNING, "closes-each-time",
    wrong="{way}: the connection is closed after each reply, so only clients get through that open one for every"
    " request",
    instead="let what closes it keep the connection (HTTP/1.1, keep-alive){hint}; Flash Player in a browser gets"
    " through, ffmpeg and rtmpdump do not",
    seen="each reply has `Connection: close`, or HTTP/1.0 without keep-alive, or FIN follows it",
    clients=(_FFMPEG, _RTMPDUMP),
)  # fmt: skip
def closes_each_time(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        if judgement.closes(tried):
            evidence = f"{len(tried.trips)} requests took {tried.connections} connections; {quoted(tried)}"
            head = tried.head
            how = "" if head is None else head.get("connection") or "none"
            yield Hit(target, f"{evidence}; Connection: {how}", way=target.way, hint=_colon(hint(tried)))


@rule(
    "PB731", WARNING, "closes-sometimes",
    wrong="{way}: the connection is closed within the session, after {count} requests, and ffmpeg and rtmpdump stop"
    " there",
    instead="raise the limit of requests for each connection, or its time-out, where it is closed (nginx:"
    " `keepalive_requests`)",
    seen="the connection ends after some of the replies, and the session goes on over another one",
    clients=(_FFMPEG, _RTMPDUMP),
)  # fmt: skip
def closes_sometimes(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        if tried.connections > 1 and not judgement.closes(tried):
            count = sum(trip.connection == 0 for trip in tried.trips)
            evidence = f"{len(tried.trips)} requests took {tried.connections} connections"
            yield Hit(target, evidence, way=target.way, count=count)


@rule(
    "PB732", WARNING, "lower-case-names",
    wrong="{way}: the names of header fields come in lower case, in which rtmpdump does not find Content-Length",
    instead="let the proxy write them as usual; in HAProxy `h1-case-adjust content-length Content-Length` in global,"
    " and `option h1-case-adjust-bogus-client` in the frontend",
    seen="a reply has content-length instead of Content-Length", clients=(_RTMPDUMP,),
)  # fmt: skip
def lower_case_names(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        if any(reply.lower_case for reply in judgement.served(tried)):
            yield Hit(target, quoted(tried), way=target.way)


@rule(
    "PB733", WARNING, "chunked-replies",
    wrong="{way}: replies come in chunks, which rtmpdump cannot read",
    instead="let the gateway and the proxies in front of it send Content-Length: turn compression off for these paths,"
    " and buffering on",
    seen="a reply has Transfer-Encoding: chunked", clients=(_RTMPDUMP,),
)  # fmt: skip
def chunked_replies(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        if any(reply.chunked for reply in judgement.served(tried)):
            yield Hit(target, quoted(tried), way=target.way)


@rule(
    "PB734", WARNING, "empty-reply",
    wrong="{way}: /{command} gets 200 with an empty body, at which ffmpeg fails and rtmpdump hangs",
    instead="let the server send the byte with the polling interval in every reply; if it does, look for a proxy that"
    " drops bodies",
    seen="the body of a reply to /send or /idle is empty", clients=(_FFMPEG, _RTMPDUMP),
)  # fmt: skip
def empty_reply(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        for trip in tried.trips[1:]:
            if trip.request.command in ("send", "idle") and trip.reply and trip.reply.found and not trip.reply.body:
                evidence = f"request {tried.trips.index(trip) + 1}; {quoted(tried)}"
                yield Hit(target, evidence, way=target.way, command=trip.request.command)
                break


@rule(
    "PB735", WARNING, "id-without-newline",
    wrong="{way}: no newline follows the session id, and rtmpdump cuts off its last character",
    instead="let the server send the id and LF, as FMS does",
    seen="the body of the reply to /open does not end with LF", clients=(_RTMPDUMP,),
)  # fmt: skip
def id_without_newline(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        body = tried.replies[0].body
        if not body.endswith(b"\n"):
            yield Hit(target, printable(body), way=target.way)


@rule(
    "PB736", NOTE, "polls-not-held",
    wrong="{way}: a poll that brings nothing is replied to at once, and rtmpdump sends the next one without a pause",
    instead="let the server hold /idle until something waits, for half a second or so (flashpol: `rtmpt_hold`)",
    seen="the reply to /idle has no RTMP in it and comes within 20 ms", clients=(_RTMPDUMP,),
)  # fmt: skip
def polls_not_held(view: View) -> Iterator[Hit]:
    for target, tried in _tunnels(view):
        if tried.obstacle is None and (took := judgement.at_once(tried)) is not None:
            yield Hit(target, f"an empty reply after {took * 1000:.1f} ms", way=target.way)


# ------------------------------------------------------------------------------------------------------------- connect


def _connected(view: View, outcome: Outcome) -> Iterator[tuple[Target, Attempt, str]]:
    """Yield the ways with this outcome, with the words of the server."""
    for target, tried in attempts(view):
        if tried.obstacle is None and tried.connected is not None and tried.connected.outcome is outcome:
            yield target, tried, tried.connected.words


def _application(view: View) -> str:
    return view.question.rtmp.application if view.question.rtmp is not None else ""


@rule(
    "PB740", ERROR, "application-rejected",
    wrong="{way}: the media server rejects {application}: {words}",
    instead="{remedy}",
    seen="the reply to `connect` is _error, or its code is not NetConnection.Connect.Success", clients=RTMP_CLIENTS,
)  # fmt: skip
def application_rejected(view: View) -> Iterator[Hit]:
    for target, tried, words in _connected(view, Outcome.REJECTED):
        place = tried.connected.redirect if tried.connected is not None else ""
        remedy = "correct the name of the application, or read the server's log: a script of it, a limit, or a list of"
        remedy += " hosts from which content may connect decides"
        if place:
            remedy = f"let the content connect to {place}, where the server sends it"
        yield Hit(
            target, words or "no code", way=target.way, application=_application(view), remedy=remedy,
            words=words or "it gives no reason",
        )  # fmt: skip


@rule(
    "PB741", ERROR, "application-closed",
    wrong="{way}: the media server closes the connection instead of a reply to `connect` for {application}",
    instead="correct the name of the application: nginx's RTMP module and others close for one that they do not have;"
    " leave out the stream, which follows it in the URLs of ffmpeg; then read the server's log; through a tunnel, a"
    " session that is lost looks the same, so probe without APP too",
    seen="FIN, RST, the command close or the end of the tunnel comes after `connect`, and no reply",
    clients=RTMP_CLIENTS,
)  # fmt: skip
def application_closed(view: View) -> Iterator[Hit]:
    for target, tried, words in _connected(view, Outcome.CLOSED):
        lost = next((trip for trip in tried.trips if trip.reply is not None and not trip.reply.found), None)
        how = f"/{lost.request.command} gets {lost.reply.head.line}" if lost and lost.reply else "it ended"
        evidence = words or f"the handshake took {tried.seconds:.2f} s, then {how}"
        yield Hit(target, evidence, way=target.way, application=_application(view))


@rule(
    "PB742", ERROR, "connect-unanswered",
    wrong="{way}: the media server shakes hands, and sends no reply to `connect` for {application}",
    instead="read the server's log: a script that decides about connections, or a host that it asks, may hang",
    seen="no _result or _error comes in the time for a reply", clients=RTMP_CLIENTS,
)  # fmt: skip
def connect_unanswered(view: View) -> Iterator[Hit]:
    for target, tried, _ in _connected(view, Outcome.SILENT):
        evidence = f"the handshake took {tried.seconds:.2f} s, then nothing"
        yield Hit(target, evidence, way=target.way, application=_application(view))


@rule(
    "PB743", ERROR, "broken-rtmp",
    wrong="{way}: what comes after the handshake is not RTMP: {words}",
    instead="correct or update the server; on a shared port look for two programs that reply to the same connection",
    seen="a chunk or a command cannot be read, or announces a message of more than 65,536 bytes", clients=RTMP_CLIENTS,
)  # fmt: skip
def broken_rtmp(view: View) -> Iterator[Hit]:
    for target, _, words in _connected(view, Outcome.MALFORMED):
        yield Hit(target, words, way=target.way, words=words)
