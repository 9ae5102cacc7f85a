"""The admin process: HTTP for Prometheus, for health checks and for people.

It has a process of its own so that neither a scrape nor a stalled one costs a worker anything.
"""

import html
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from flashpol.admin.metrics import make_registry
from flashpol.admin.view import View
from flashpol.counters import READY
from flashpol.gateway.hub import Stop

# Scrapers and a few browsers; more at once are made to wait in the accept queue.
MAX_REQUESTS = 100
# A request that takes longer than this is somebody holding the connection open.
REQUEST_TIMEOUT = 10.0
# A reload is answered when it is done; how often we look whether it is, in seconds.
RELOAD_POLL = 0.02

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
Action = Callable[[Environment], "Response"]


class Response(NamedTuple):
    status: str
    kind: str
    body: bytes


def _text(status: str, text: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


class Application:
    """WSGI: methods and paths to responses, as one table.

    reload: asks the arbiter to load its configuration anew; None where that is not allowed here.
    """

    def __init__(self, view: View, reload: Callable[[], None] | None = None) -> None:
        self._view = view
        self._registry: CollectorRegistry = make_registry(view)
        self._ask_reload = reload
        self._gets: dict[str, Action] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/-/healthy": lambda _: _text("200 OK", "flashpol is healthy"),
            "/-/ready": self._ready,
        }
        self._posts: dict[str, Action] = {"/-/reload": self._reload}

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        methods = {"GET": self._gets, "HEAD": self._gets, "POST": self._posts}
        allowed = [name for name, table in methods.items() if path in table]
        # One request a connection: Handler's bound is then the request's, and no scrape meets an expiring connection.
        headers: list[tuple[str, str]] = [("Connection", "close")]
        if not allowed:
            response = _text("404 Not Found", f"not here; try {' '.join(self._gets)}")
        elif method not in allowed:
            response = _text("405 Method Not Allowed", f"use {allowed[0]}")
            headers.append(("Allow", ", ".join(allowed)))
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
        while status.reloads_answered < ticket:
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
        rows = "".join(
            f"<tr><td>{html.escape(facts.listener)}<td>{self._view.ledger.total(facts.listener).replies}"
            f"<td>{len(facts.reply)}"
            for facts in self._view.facts
        )
        links = "".join(f'<li><a href="{path}">{path}</a>' for path in self._gets if path != "/")
        return Response(
            "200 OK",
            "text/html; charset=utf-8",
            f'<!doctype html><html lang="en"><meta name="viewport" content="width=device-width"><title>flashpol</title>'
            f"<h1>flashpol</h1><table><tr><th>listener<th>replies<th>policy bytes{rows}</table>"
            f"<ul>{links}</ul>".encode(),
        )


class Handler(WSGIHandler):  # type: ignore[misc]
    """One connection, for so long and no longer: pywsgi itself would wait for a stalled request for ever."""

    def handle(self) -> None:
        with gevent.Timeout(REQUEST_TIMEOUT, False):
            super().handle()


def run(sock: socket.socket, view: View, reload: Callable[[], None] | None, stop: Stop) -> None:
    """Serve HTTP on the listening `sock` until `stop` is set; `reload` as for `Application`."""
    listener = gevent.socket.socket(fileno=sock.detach())
    server = WSGIServer(
        listener,
        Application(view, reload),
        spawn=Pool(MAX_REQUESTS),
        # Without it pywsgi asks DNS for a name before it serves.
        environ={"SERVER_NAME": listener.getsockname()[0]},
        log=None,
        error_log=logging.getLogger("flashpol"),
        handler_class=Handler,
    )
    server.start()
    view.shared.admin.up = 1
    stop.event.wait()
    # The next admin process begins when this one takes no more: an answer of ours after one of its would be older.
    server.close()
    view.shared.admin.up = 0
    server.stop(timeout=0 if stop.kept is None else REQUEST_TIMEOUT)
