"""The admin process: HTTP for Prometheus, for health checks and for people.

It has a process of its own so that neither a scrape nor a stalled one costs a worker anything.
"""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterable
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import gevent
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from flashpol.admin import decide as questions
from flashpol.admin.context import AdminContext
from flashpol.admin.history import History, Sample
from flashpol.admin.metrics import make_registry
from flashpol.admin.page import document
from flashpol.admin.policy_analysis import Library
from flashpol.admin.status import status
from flashpol.counters.status import READY
from flashpol.hub import Stop

# Scrapers and a few browsers; more at once, and the one that asked for nothing for longest gives way.
MAX_REQUESTS = 100
# A request that takes longer than this is somebody holding the connection open.
REQUEST_TIMEOUT = 10.0
# A reload is answered when it is done; how often we look whether it is, in seconds.
RELOAD_POLL = 0.02
# After so many seconds the answer is that it is not done yet: before the request is cut off.
RELOAD_PATIENCE = REQUEST_TIMEOUT - 1
# What a question may consist of: more names than these, repeated ones, are nobody's form.
MAX_FIELDS = 8

# Of every answer. The page takes everything from here and shows nothing inside another page; what it shows is of the
# moment. A page of somebody else cannot use what it gets from here even as an image.
HEADERS = (
    ("Connection", "close"),  # one request each: Handler's bound is then the request's, and no scrape meets its expiry
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
# Browsers send one of these with every POST, and nothing else does. A name that resolves to this address makes a
# stranger's page the same origin as ours (DNS rebinding), so it does not help to ask which origin it is.
OF_BROWSERS = ("HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE")

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

    history: the last minutes, which somebody else fills; reload: asks the arbiter to load its configuration anew, None
    where that is not allowed here.
    """

    def __init__(
        self, view: AdminContext, reload: Callable[[], None] | None = None, history: History | None = None
    ) -> None:
        self._view = view
        self._history = history or History(partial(Sample.of, view))
        self._library = Library(view.facts)
        self._registry: CollectorRegistry = make_registry(view)
        self._ask_reload = reload
        self._gets: dict[str, Action] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/-/healthy": lambda _: _text("200 OK", "flashpol is healthy"),
            "/-/ready": self._ready,
            "/-/status": lambda _: _json("200 OK", status(view, self._history.samples)),
            "/-/decide": self._decide,
        }
        self._help = f"not here; try {' '.join(self._gets)}"
        # What only the page asks for.
        self._gets["/-/live"] = self._live
        for name, (kind, content) in document.FILES.items():
            self._gets[f"/-/page/{name}"] = partial(_file, Response("200 OK", kind, content))
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
        elif method == "POST" and any(name in environ for name in OF_BROWSERS):
            response = _text("403 Forbidden", "not for web pages: use a client that is no browser, such as curl")
        else:
            response = methods[method][path](environ)
        headers += [("Content-Type", response.kind), ("Content-Length", str(len(response.body)))]
        start_response(response.status, headers)
        return [] if method == "HEAD" else [response.body]

    def _reload(self, _: Environment) -> Response:
        if self._ask_reload is None:
            return _text("403 Forbidden", "reloading over HTTP is off: set reload_endpoint = true, or send SIGHUP")
        status = self._view.status
        status.reloads_asked = ticket = status.reloads_asked + 1
        self._ask_reload()
        deadline = time.monotonic() + RELOAD_PATIENCE
        while status.reloads_answered < ticket:
            if time.monotonic() >= deadline:
                return _text("202 Accepted", "not done yet: the log, and reload in /-/status, will say what came of it")
            gevent.sleep(RELOAD_POLL)
        if status.reload_successful:
            return _text("200 OK", "reloaded")
        return _text("500 Internal Server Error", f"the running configuration stays: {status.reload_error}")

    def _metrics(self, environ: Environment) -> Response:
        encoder, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Response("200 OK", kind, encoder(self._registry))

    def _ready(self, _: Environment) -> Response:
        shared = self._view.shared
        workers = [shared.process(slot).serving for slot in range(shared.slots)]
        if self._view.status.state == READY and any(workers):
            return _text("200 OK", "flashpol is ready")
        return _text("503 Service Unavailable", f"not ready: {sum(workers)} of {len(workers)} workers accept")

    def _page(self, _: Environment) -> Response:
        return self._rendered(self._library)

    def _live(self, _: Environment) -> Response:
        return self._rendered(None)

    def _rendered(self, library: Library | None) -> Response:
        samples = self._history.samples
        body = document.page(status(self._view, samples), samples, self._view.facts, library)
        return Response("200 OK", HTML, body)

    def _decide(self, environ: Environment) -> Response:
        """JSON, or a page for who asks for one: a form that was sent without JavaScript."""
        try:
            asked = dict(parse_qsl(environ.get("QUERY_STRING", ""), max_num_fields=MAX_FIELDS))
        except ValueError:
            asked = {}
        found = questions.answer(asked, self._library)
        code = "200 OK" if found.decisions else "400 Bad Request"
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            return Response(code, HTML, document.question_page(self._view.facts, asked, found.as_html()))
        return _json(code, found.as_json())


def _file(response: Response, _: Environment) -> Response:
    return response


class Handler(WSGIHandler):  # type: ignore[misc]
    """One connection, for so long and no longer: pywsgi itself would wait for a stalled request for ever."""

    def handle(self) -> None:
        with gevent.Timeout(REQUEST_TIMEOUT, False):
            super().handle()

    def handle_one_response(self) -> None:
        gevent.getcurrent().has_asked = True
        super().handle_one_response()


class Visit(gevent.Greenlet):  # type: ignore[misc]
    """Runs a Handler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.has_asked, self.began = False, time.monotonic()


class Visits(Pool):  # type: ignore[misc]
    """All that go on, `MAX_REQUESTS` at most.

    Nobody waits for a place: who holds a hundred silent connections would otherwise keep a scrape out until they end,
    and then again. One that sent no request goes first, then one that is slow to take its answer.
    """

    def __init__(self) -> None:
        super().__init__(greenlet_class=Visit)

    def spawn(self, *args: Any, **kwargs: Any) -> Visit:
        if len(self) >= MAX_REQUESTS:
            oldest = min(self, key=attrgetter("has_asked", "began"))
            self.discard(oldest)
            oldest.kill(block=False)
        visit: Visit = super().spawn(*args, **kwargs)
        return visit


def run(sock: socket.socket, view: AdminContext, reload: Callable[[], None] | None, stop: Stop) -> None:
    """Serve HTTP on the listening `sock` until `stop` is set; `reload` as for `Application`."""
    listener = gevent.socket.socket(fileno=sock.detach())
    history = History(partial(Sample.of, view))
    server = WSGIServer(
        listener,
        Application(view, reload, history),
        spawn=Visits(),
        # Without it pywsgi asks DNS for a name before it serves.
        environ={"SERVER_NAME": listener.getsockname()[0]},
        log=None,
        error_log=logging.getLogger("flashpol"),
        handler_class=Handler,
    )
    sampler = gevent.spawn(history.run)
    server.start()
    view.shared.admin.up = 1
    stop.event.wait()
    sampler.kill()
    # The next admin process begins when this one takes no more: an answer of ours after one of its would be older.
    server.close()
    view.shared.admin.up, view.shared.admin.accepts_no_more = 0, 1
    server.stop(timeout=0 if stop.kept is None else REQUEST_TIMEOUT)
