"""The admin endpoint over HTTP: the response of each path, and that no client can block it."""

import contextlib
import http.client
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import gevent.event
import pytest
from gevent.pywsgi import headers_factory
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.endpoint import KEPT_HEAD, MAX_LINE, MAX_LINES, Application, Handler, RequestPool
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import DRAINING, READY, STARTING, ServerStatus
from flashpol.counters.totals import CounterTotals
from testkit.clients import REQUEST, ask, connect, rest
from testkit.polling import eventually
from testkit.processes import PATIENT, POLICY, Flashpol, status

PATHS = ("/", "/metrics", "/-/healthy", "/-/ready")


@pytest.fixture(scope="module")
def server() -> Iterator[Flashpol]:
    with Flashpol("--policy", POLICY, workers=2) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.log


# ------------------------------------------------------------------------------------------------------------ over HTTP


@pytest.mark.parametrize("accept", [None, "*/*", "text/plain;version=0.0.4", "text/html, image/png", "nonsense;;q="])
def test_metrics_without_openmetrics_accepted_are_text(server: Flashpol, accept: str | None) -> None:
    reply = server.get("/metrics", **({"Accept": accept} if accept else {}))
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("text/plain; version=")
    assert b"# TYPE flashpol_replies_total counter" in reply.body
    assert int(reply.headers["Content-Length"]) == len(reply.body)


def test_metrics_with_prometheus_accept_header_are_openmetrics(server: Flashpol) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"  # as Prometheus asks
    reply = server.get("/metrics", Accept=accept)
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text; version=")
    names = {family.name for family in parse_openmetrics(reply.body.decode())}
    assert {"flashpol_replies", "flashpol_request_duration_seconds", "flashpol_build_info"} <= names


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_metrics_of_a_server_in_use_satisfy_promtool(server: Flashpol) -> None:
    ask(server.place)
    text = server.get("/metrics").body
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=7, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("path", "text"), [("/-/healthy", b"flashpol is healthy\n"), ("/-/ready", b"flashpol is ready\n")]
)
def test_health_and_readiness_of_a_running_server_are_ok(server: Flashpol, path: str, text: bytes) -> None:
    reply = server.get(path)
    assert (reply.status, reply.body) == (200, text)


def test_page_links_to_the_other_paths(server: Flashpol) -> None:
    reply = server.get("/")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    for text in (*PATHS[1:], server.addresses[0]):
        assert text.encode() in reply.body


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "//", "/-/", "/-/reload/", "/../etc/passwd", "/%00", "/%ff"])
def test_unknown_path_returns_404_and_names_the_known_ones(server: Flashpol, path: str) -> None:
    for method in ("GET", "POST"):
        reply = server.get(path, method)
        assert reply.status == 404
        assert b"/metrics" in reply.body, "the response names the known paths"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"])
def test_method_other_than_get_returns_405(server: Flashpol, path: str, method: str) -> None:
    reply = server.get(path, method)
    assert (reply.status, reply.headers["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", [*PATHS, "/none"])
def test_head_returns_the_headers_of_get_without_a_body(server: Flashpol, path: str) -> None:
    head, get = server.get(path, "HEAD"), server.get(path)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(head.headers["Content-Length"]) > 0


def test_client_that_reuses_connections_gets_every_response(server: Flashpol) -> None:
    connection = http.client.HTTPConnection(*server.admin_place, timeout=5)
    with contextlib.closing(connection):
        for path, method in (("/-/healthy", "HEAD"), ("/none", "GET"), ("/-/ready", "POST"), ("/-/healthy", "GET")):
            connection.request(method, path)
            last = connection.getresponse()
            body = last.read()
        assert (last.status, body) == (200, b"flashpol is healthy\n")


@pytest.mark.parametrize(
    "data", [REQUEST, b"\x16\x03\x01\x02\x00\x01", b"\0" * 100, b"GET\r\n\r\n", b"G" * 20_000 + b"\r\n\r\n"]
)
def test_request_that_is_not_http_gets_no_success(server: Flashpol, data: bytes) -> None:
    with connect(server.admin_place, data) as connection:
        connection.shutdown(1)
        with contextlib.suppress(ConnectionResetError):
            assert b" 200 " not in rest(connection)
    assert server.get("/-/healthy").status == 200


# -------------------------------------------------------------------------------------------------- no client blocks it


def test_stalled_requests_do_not_delay_others(server: Flashpol) -> None:
    with contextlib.ExitStack() as stack:
        for part in (
            b"",
            b"GET /metr",
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n",
        ):
            for _ in range(10):
                stack.enter_context(connect(server.admin_place, part))
        for path in PATHS:
            assert server.get(path).status == 200
        assert ask(server.place)


def test_stalled_request_is_closed_after_its_timeout() -> None:
    prelude = "import flashpol.admin.endpoint; flashpol.admin.endpoint.REQUEST_TIMEOUT = 0.2"
    with Flashpol("--policy", POLICY, prelude=prelude) as server:
        stalled = [connect(server.admin_place, part) for part in (b"", b"GET /metr", b"GET / HTTP/1.1\r\nHost: x\r\n")]
        for connection in stalled:
            assert rest(connection) == b""
        assert server.get("/-/healthy").status == 200
        assert server.complaints == []


def test_stalled_requests_beyond_the_limit_are_closed_for_new_ones() -> None:
    # REQUEST_TIMEOUT is longer than the deadline of everything here: it is not what ends them.
    prelude = "import flashpol.admin.endpoint as e; e.MAX_REQUESTS = 2"
    with Flashpol("--policy", POLICY, prelude=prelude) as server, contextlib.ExitStack() as stack:
        stalled = [stack.enter_context(connect(server.admin_place, b"GET /metr")) for _ in range(6)]
        for _ in range(6):
            assert server.get("/-/healthy").status == 200
        with contextlib.suppress(ConnectionResetError):
            assert rest(stalled[0]) == b"", "the oldest was closed"
        assert server.complaints == []


def test_request_pool_when_full_kills_the_oldest_without_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashpol.admin.endpoint.MAX_REQUESTS", 3)
    pool, never = RequestPool(), gevent.event.Event()
    asked, *silent = [pool.spawn(never.wait) for _ in range(3)]
    asked.has_request = True
    gevent.idle()
    silent.append(pool.spawn(never.wait))
    gevent.idle()
    assert [greenlet.dead for greenlet in (asked, *silent)] == [False, True, False, False]
    assert len(pool) == 3
    pool.kill()


def test_metrics_of_stopped_workers_are_still_served() -> None:
    with Flashpol("-c", PATIENT, "--policy", POLICY, workers=2) as server:
        assert ask(server.place)
        for worker in server.workers:
            worker.kill(signal.SIGSTOP)
        try:
            for worker in server.workers:
                eventually(lambda pid=worker.pid: status(pid)["State"].startswith("T"), "SIGSTOP")
            waiting = connect(server.place, REQUEST)
            eventually(lambda: server.metrics().total("accept_queue_length") == 1, "one in the accept queue")
            server.counts(1, "replies_total")
            assert server.get("/-/healthy").status == 200
        finally:
            for worker in server.workers:
                worker.kill(signal.SIGCONT)
        assert rest(waiting) == POLICY.read_bytes() + b"\0"
        eventually(lambda: server.metrics().total("replies_total") == 2, "the second reply")


# ------------------------------------------------------------------------------------------------- without a connection


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n",
        b"",
        b"Host: x\r\nAccept: text/plain\r\naccept: */*\r\n\r\n",
        b"Host: x\n\n",
        b"Host: x\n\r\n",
        b"Host: x\r\n folded\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 7\r\n\r\n",
        b"no colon\r\nHost: x\r\n\r\n",
        b"Host: \xff\0\r\n\r\n",
        b"Host: x\r\nAcc",
        b"Host: " + b"x" * (KEPT_HEAD - 11) + b"\r\n\r\n",
        b"Host: " + b"x" * KEPT_HEAD + b"\r\n\r\n",
        b"A: b\r\n" * MAX_LINES,
        b"A: b\r\n" * (MAX_LINES - 1) + b"\r\n",
        b"A: b\r\n" * MAX_LINES + b"\r\n",
        b"A: " + b"b" * (MAX_LINE - 5) + b"\r\n\r\n",
        b"A: " + b"b" * (MAX_LINE - 4) + b"\r\n\r\n",
        b"A: " + b"b" * (2 * MAX_LINE),
    ],
    ids=lambda head: f"{len(head)}-{head[:12]}",
)
def test_head_is_read_and_parsed_as_pywsgi_does_also_when_it_was_kept(head: bytes) -> None:
    def read(parse: Callable[[BytesIO], Any]) -> tuple[object, bytes]:
        received = BytesIO(head + b"body\r\n\r\nmore")
        try:
            message = parse(received)
        except http.client.HTTPException as error:
            return str(error), received.read()
        return (message.status, message.items(), message.get_payload(), list(message.headers)), received.read()

    for _ in range(2):
        assert read(Handler.MessageClass) == read(headers_factory)


def call(shared: SharedCounters, path: str, listener: str = "master", state: int = READY) -> tuple[str, bytes]:
    seen: list[str] = []
    status = ServerStatus()
    status.state = state
    application = Application(AdminContext(status, CounterTotals(), shared, [ListenerInfo(listener, b"<a/>\0")]))
    environ: dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    body = b"".join(application(environ, lambda status, headers: seen.append(status)))
    return seen[0], body


@pytest.mark.parametrize(
    ("state", "up", "ready"),
    [
        (STARTING, (1, 1), False),
        (READY, (1, 1), True),
        (READY, (0, 1), True),
        (READY, (0, 0), False),
        (DRAINING, (1, 1), False),
    ],
)
def test_ready_requires_the_ready_state_and_a_serving_worker(state: int, up: tuple[int, int], ready: bool) -> None:
    shared = SharedCounters(2, 1)
    shared.process(0).up, shared.process(1).up = up
    shared.process(0).heartbeat_ns = shared.process(1).heartbeat_ns = time.monotonic_ns()
    status, body = call(shared, "/-/ready", state=state)
    assert status == ("200 OK" if ready else "503 Service Unavailable")
    assert ready or f"{sum(up)} of 2 workers".encode() in body
    assert call(shared, "/-/healthy", state=state)[0] == "200 OK", "health is not readiness"


def test_page_escapes_the_name_of_a_listener() -> None:
    _, body = call(SharedCounters(1, 1), "/", listener="<script>&")
    assert b"<script>" not in body
    assert b"&lt;script&gt;&amp;" in body
