"""The admin process: HTTP for Prometheus, for health checks and for people.

It is a process of its own, so that neither a scrape nor a stalled client costs a worker anything.
"""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterable
from email.message import Message
from functools import lru_cache, partial
from io import BytesIO
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import parse_qsl

import gevent
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer, headers_factory
from markupsafe import Markup

from flashpol.admin.context import AdminContext
from flashpol.admin.decide import decide
from flashpol.admin.exposition import Exposition
from flashpol.admin.history import History, Sample
from flashpol.admin.metrics import FlashpolCollector
from flashpol.admin.page import rendering
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.admin.problems import Json
from flashpol.admin.ruffle import ruffle
from flashpol.admin.status import status
from flashpol.counters.status import DRAINING, READY
from flashpol.hub import run_again
from flashpol.process.lifecycle import ChildControl

# Scrapers and a few browsers. For one more, the connection that has been silent longest is closed.
MAX_REQUESTS = 100
# Seconds after which a connection is closed, whatever it does: no request takes that long.
REQUEST_TIMEOUT = 10.0
# The reply to a reload waits until the reload has ended; seconds between two checks whether it has.
RELOAD_POLL = 0.02
# Seconds after which the reply is "not finished yet": before the request is cut off.
RELOAD_PATIENCE = REQUEST_TIMEOUT - 1
# Fields that a query may have. Its form has three; more are an attempt to cost time.
MAX_FIELDS = 8

# What http.client reads of a head before it gives up: lines, and bytes of one.
MAX_LINES, MAX_LINE = 100, 65536
END_OF_HEAD = (b"\r\n", b"\n", b"")
# Heads that are kept parsed, and bytes of one that may be. A scraper sends the same one each time.
KEPT_HEADS, KEPT_HEAD = 8, 2000

# In every response. The page loads everything from here, cannot be framed and is never stored. The page of another site
# cannot use anything from here, not even as an image.
HEADERS = (
    ("Connection", "close"),  # one request each: Handler's deadline is then the request's, and no scrape races with it
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; connect-src 'self'; img-src 'self'; script-src 'self'; style-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
# Browsers of today send one of these with every POST, and no other client does. The origin's name proves nothing: a
# name that resolves to this address makes another site's page the same origin as ours (DNS rebinding).
BROWSER_HEADERS = ("HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE")
# Internet Explorer, and Firefox before version 70, send neither with a form. No form can send this header.
RELOAD_HEADER = "HTTP_X_FLASHPOL_RELOAD"
RELOAD_COMMAND = "curl -X POST -H 'X-Flashpol-Reload: 1' http://HOST:PORT/-/reload"

HTML = "text/html; charset=utf-8"
JSON = "application/json"

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Action = Callable[[Environment], "Response"]


class Response(NamedTuple):
    status: str
    kind: str
    body: bytes


def _text(status: str, text: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


def _json(status: str, value: object) -> Response:
    return Response(status, JSON, f"{json.dumps(value)}\n".encode())


class Application:
    """WSGI: methods and paths to responses, as one table.

    analyses: of the policies that `context` names; history: the last minutes, which somebody else fills; reload: asks
    the arbiter to load its configuration again, None where that is not allowed over HTTP.
    """

    def __init__(
        self,
        context: AdminContext,
        reload: Callable[[], None] | None = None,
        history: History | None = None,
        analyses: AnalysisCache | None = None,
    ) -> None:
        self._context = context
        self._history = history or History(partial(Sample.of, context))
        self._analyses = analyses or AnalysisCache(context.listeners)
        self._exposition = Exposition(FlashpolCollector(context, self._analyses))
        self._request_reload = reload
        self._gets: dict[str, Action] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/-/healthy": lambda _: _text("200 OK", "flashpol is healthy"),
            "/-/ready": self._ready,
            "/-/status": lambda _: _json("200 OK", self._status()),
            "/-/decide": self._decide,
            "/-/ruffle": self._ruffle,
        }
        self._help = f"not found; try {' '.join(self._gets)}"
        # What only the page asks for.
        self._gets["/-/live"] = self._live
        for name, (media_type, content) in rendering.FILES.items():
            self._gets[f"/-/page/{name}"] = partial(_file, Response("200 OK", media_type, content))
        self._posts: dict[str, Action] = {"/-/reload": self._reload}

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        methods = {"GET": self._gets, "HEAD": self._gets, "POST": self._posts}
        allowed = [name for name, table in methods.items() if path in table]
        headers: list[tuple[str, str]] = [*HEADERS]
        if not allowed:
            response = _text("404 Not Found", self._help)
        elif method not in allowed:
            response = _text("405 Method Not Allowed", f"use {allowed[0]}")
            headers.append(("Allow", ", ".join(allowed)))
        elif method == "POST" and any(name in environ for name in BROWSER_HEADERS):
            response = _text("403 Forbidden", f"requests from browsers are not allowed; use {RELOAD_COMMAND}")
        elif method == "POST" and RELOAD_HEADER not in environ:
            response = _text("403 Forbidden", f"the header X-Flashpol-Reload is missing; use {RELOAD_COMMAND}")
        else:
            response = methods[method][path](environ)
        headers += [("Content-Type", response.kind), ("Content-Length", str(len(response.body)))]
        start_response(response.status, headers)
        return [] if method == "HEAD" else [response.body]

    def _reload(self, _: Environment) -> Response:
        if self._request_reload is None:
            return _text("403 Forbidden", "reloading over HTTP is off: set reload_endpoint = true, or send SIGHUP")
        status = self._context.status
        ticket = status.ask_for_reload()
        self._request_reload()
        deadline = time.monotonic() + RELOAD_PATIENCE
        while not status.is_answered(ticket):
            if status.state == DRAINING:
                return _text("503 Service Unavailable", "the server is stopping and loads no configuration any more")
            if time.monotonic() >= deadline:
                return _text("202 Accepted", "not done yet: the log and /-/status will say how it ended")
            gevent.sleep(RELOAD_POLL)
        if status.reload_successful:
            return _text("200 OK", "reloaded")
        return _text("500 Internal Server Error", f"the running configuration stays: {status.reload_error}")

    def _metrics(self, environ: Environment) -> Response:
        return Response("200 OK", *self._exposition.write(environ.get("HTTP_ACCEPT", "")))

    def _ready(self, _: Environment) -> Response:
        shared = self._context.shared
        workers = [shared.process(slot).serving for slot in range(shared.slots)]
        if self._context.status.state == READY and any(workers):
            return _text("200 OK", "flashpol is ready")
        return _text("503 Service Unavailable", f"not ready: {sum(workers)} of {len(workers)} workers accept")

    def _status(self) -> Json:
        return status(self._context, self._history.samples, self._analyses)

    def _page(self, _: Environment) -> Response:
        return self._rendered(rendering.render_policies(self._analyses))

    def _live(self, _: Environment) -> Response:
        return self._rendered(None)

    def _rendered(self, policies: Markup | None) -> Response:
        context = self._context
        body = rendering.render_page(
            self._status(), self._history.samples, context.listeners, policies, bool(context.websocket_listeners)
        )
        return Response("200 OK", HTML, body)

    def _ruffle(self, environ: Environment) -> Response:
        """JSON, or a page for the form of the page, which asks for HTML."""
        result = ruffle(_query(environ), self._context)
        code = "400 Bad Request" if result.error else "200 OK"
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            return Response(code, HTML, rendering.render_snippet(result))
        return _json(code, result.as_json())

    def _decide(self, environ: Environment) -> Response:
        """JSON, or a page for a form that was sent without JavaScript, which asks for HTML."""
        result = decide(_query(environ), self._analyses, self._context)
        code = "200 OK" if result.decisions else "400 Bad Request"
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            return Response(code, HTML, rendering.render_decision(self._context.listeners, result))
        return _json(code, result.as_json())


def _query(environ: Environment) -> dict[str, str]:
    try:
        return dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _file(response: Response, _: Environment) -> Response:
    return response


@lru_cache(maxsize=KEPT_HEADS)
def _parse_once(head: bytes) -> Message:
    return headers_factory(BytesIO(head))  # type: ignore[no-any-return]


class Handler(WSGIHandler):  # type: ignore[misc]
    """One connection, for `REQUEST_TIMEOUT` at most: pywsgi itself would wait for a stalled client without end.

    Without these methods pywsgi would take two thirds more CPU: it parses each head as an e-mail, and writes a line for
    an access log that there is not.
    """

    def handle(self) -> None:
        with gevent.Timeout(REQUEST_TIMEOUT, False):
            super().handle()

    @staticmethod
    def MessageClass(received: BinaryIO, *_: object) -> Message:
        """The head of a request without its first line. pywsgi changes no more than to
        delete Content-Length from that of a chunked request, each time."""
        lines: list[bytes] = []
        while len(lines) <= MAX_LINES and not (lines and (lines[-1] in END_OF_HEAD or len(lines[-1]) > MAX_LINE)):
            lines.append(received.readline(MAX_LINE + 1))
        head = b"".join(lines)
        return _parse_once(head) if len(head) <= KEPT_HEAD else headers_factory(BytesIO(head))

    def log_request(self) -> None:
        """There is no access log, for which pywsgi writes a line also then."""

    def handle_one_response(self) -> None:
        gevent.getcurrent().has_request = True
        super().handle_one_response()


class RequestGreenlet(gevent.Greenlet):  # type: ignore[misc]
    """Runs a Handler. has_request: it has received a whole request; began: CLOCK_MONOTONIC."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_request, self.began = False, time.monotonic()


class RequestPool(Pool):  # type: ignore[misc]
    """The connections that are open, `MAX_REQUESTS` at most.

    When the pool is full, the oldest connection is killed instead of making new ones wait; otherwise a hundred silent
    connections could block scrapes again and again. One without a request is killed before one that has sent one.
    """

    def __init__(self) -> None:
        super().__init__(greenlet_class=RequestGreenlet)

    def spawn(self, *args: Any, **kwargs: Any) -> RequestGreenlet:
        if len(self) >= MAX_REQUESTS:
            oldest = min(self, key=attrgetter("has_request", "began"))
            self.discard(oldest)
            oldest.kill(block=False)
        greenlet: RequestGreenlet = super().spawn(*args, **kwargs)
        return greenlet


def run(sock: socket.socket, context: AdminContext, reload: Callable[[], None] | None, control: ChildControl) -> None:
    """Serve HTTP on the listening `sock` until `control` says `draining`; `reload` as for `Application`."""
    listener = gevent.socket.socket(fileno=sock.detach())
    history, analyses = History(partial(Sample.of, context)), AnalysisCache(context.listeners)
    server = WSGIServer(
        listener,
        Application(context, reload, history, analyses),
        spawn=RequestPool(),
        # Without it pywsgi asks DNS for a name before it serves.
        environ={"SERVER_NAME": listener.getsockname()[0]},
        log=None,
        error_log=logging.getLogger("flashpol"),
        handler_class=Handler,
    )
    background = [gevent.spawn(run_again, history.run, "the history of the counters"), gevent.spawn(analyses.run)]
    server.start()
    context.shared.admin.up = 1
    control.draining.wait()
    gevent.killall(background, block=False)
    # The next admin process starts once this one accepts no more: a reply of ours must not come after one of its
    # replies, since its counters would be older.
    server.close()
    context.shared.admin.up, context.shared.admin.draining = 0, 1
    server.stop(timeout=0 if control.kept is None else REQUEST_TIMEOUT)
