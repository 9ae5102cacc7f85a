"""A real browser agrees: it opens a WebSocket where the probe finds no error, and none where it finds one."""

import json
import shutil
import socket
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import websocket_servers as servers
from loopback import Server
from test_websocket_findings import CASES

from flashpol.policy.findings import Severity
from flashpol.probe.findings import RULES

pytestmark = pytest.mark.slow

ERRORS = {rule.code for rule in RULES if rule.severity is Severity.ERROR}
# Of these the browser waits for a reply, for minutes: the probe gives up earlier.
WAITS = {"PB609", "PB611"}
PAGE = """<script>
const attempt = port => new Promise(resolve => {
  const socket = new WebSocket(`ws://127.0.0.1:${port}/chess`);
  let opened = false;
  socket.onopen = () => { opened = true; setTimeout(() => { socket.onclose = null; resolve(true); }, 300); };
  socket.onclose = () => setTimeout(() => resolve(false), 0);
});
Promise.all(PORTS.map(attempt)).then(results => fetch("/done", {method: "POST", body: JSON.stringify(results)}));
</script>"""


def test_chromium_opens_what_the_probe_finds_no_error_in(tmp_path: Path) -> None:
    command = shutil.which("chromium")
    if command is None:
        pytest.skip("no chromium here")
    cases = {name: case for name, case in CASES.items() if not WAITS & case[1] or name in ("a NUL", "no status")}
    done, results = threading.Event(), []

    with ExitStack() as stack:
        ports = [stack.enter_context(Server(handler)).port for handler, _ in cases.values()]
        page = PAGE.replace("PORTS", json.dumps(ports)).encode()

        def serve(connection: socket.socket) -> None:
            request = servers.head_of(connection)
            head, _, body = request.partition(b"\r\n\r\n")
            if head.startswith(b"POST /done"):
                body += servers.exactly(connection, int(servers.field(request, "Content-Length")) - len(body))
                results.extend(json.loads(body))
                done.set()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n" + page)

        web = stack.enter_context(Server(serve))
        browser = subprocess.Popen(
            [command, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
             f"http://127.0.0.1:{web.port}/"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert done.wait(60), "the page has no results"
        finally:
            browser.terminate()
            browser.wait(10)
    expected = {name: not ERRORS & found for name, (_, found) in cases.items()}
    assert dict(zip(cases, results, strict=True)) == expected
