"""The admin process: HTTP for Prometheus, for health checks and for people.

It has a process of its own so that neither a scrape nor a stalled one costs a worker anything.
"""

import html
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import gevent
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from flashpol.admin.metrics import PolicyFacts, make_registry
from flashpol.counters import READY, SharedCounters

# Scrapers and a few browsers; more at once are made to wait in the accept queue.
MAX_REQUESTS = 100
# A request that takes longer than this is somebody holding the connection open.
REQUEST_TIMEOUT = 10.0

Environment = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]


class Response(NamedTuple):
    status: str
    kind: str
    body: bytes


def _text(status: str, text: str) -> Response:
    return Response(status, "text/plain; charset=utf-8", f"{text}\n".encode())


class Application:
    """WSGI: paths to responses, as one table."""

    def __init__(self, shared: SharedCounters, facts: list[PolicyFacts]) -> None:
        self._shared = shared
        self._facts = facts
        self._registry: CollectorRegistry = make_registry(shared, facts)
        self._paths: dict[str, Callable[[Environment], Response]] = {
            "/": self._page,
            "/metrics": self._metrics,
            "/-/healthy": lambda _: _text("200 OK", "flashpol is healthy"),
            "/-/ready": self._ready,
        }

    def __call__(self, environ: Environment, start_response: StartResponse) -> Iterable[bytes]:
        handler = self._paths.get(environ["PATH_INFO"])
        # One request a connection: Handler's bound is then the request's, and no scrape meets an expiring connection.
        headers: list[tuple[str, str]] = [("Connection", "close")]
        if handler is None:
            response = _text("404 Not Found", f"not here; try {' '.join(self._paths)}")
        elif environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            response = _text("405 Method Not Allowed", "use GET")
            headers.append(("Allow", "GET, HEAD"))
        else:
            response = handler(environ)
        headers += [("Content-Type", response.kind), ("Content-Length", str(len(response.body)))]
        start_response(response.status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _metrics(self, environ: Environment) -> Response:
        encoder, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        return Response("200 OK", kind, encoder(self._registry))

    def _ready(self, _: Environment) -> Response:
        workers = [self._shared.process(slot).serving for slot in range(self._shared.slots)]
        if self._shared.server.state == READY and any(workers):
            return _text("200 OK", "flashpol is ready")
        return _text("503 Service Unavailable", f"not ready: {sum(workers)} of {len(workers)} workers accept")

    def _page(self, _: Environment) -> Response:
        rows = "".join(
            f"<tr><td>{html.escape(facts.listener)}<td>{self._shared.total(i).replies}<td>{len(facts.reply)}"
            for i, facts in enumerate(self._facts)
        )
        links = "".join(f'<li><a href="{path}">{path}</a>' for path in self._paths if path != "/")
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


def run(sock: socket.socket, shared: SharedCounters, facts: list[PolicyFacts], stop: Event) -> None:
    """Serve HTTP on the listening `sock` until `stop` is set."""
    listener = gevent.socket.socket(fileno=sock.detach())
    server = WSGIServer(
        listener,
        Application(shared, facts),
        spawn=Pool(MAX_REQUESTS),
        # Without it pywsgi asks DNS for a name before it serves.
        environ={"SERVER_NAME": listener.getsockname()[0]},
        log=None,
        error_log=logging.getLogger("flashpol"),
        handler_class=Handler,
    )
    server.start()
    shared.admin.up = 1
    stop.wait()
    server.stop(timeout=0)
