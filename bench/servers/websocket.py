"""Servers that take WebSocket clients to an application: one worker or thread each, or a process for each session.

websockify has the processes. It and flashpol end WebSocket: their application sees the bytes alone. HAProxy and nginx
pass the frames on, so theirs speaks WebSocket itself. flashpol's own shared port and its TLS, which its plain clients
use, are peers too.
"""

import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import BenchError, build
from bench.servers.certificate import Certificate
from bench.servers.haproxy import configuration as haproxy_configuration
from bench.servers.haproxy import missing as haproxy_missing
from bench.servers.haproxy import started as haproxy_started
from bench.servers.nginx import http_configuration, nginx_program
from bench.servers.nginx import started as nginx_started
from bench.servers.relays import SESSIONS, flashpol_relay
from bench.servers.running import (
    BACKLOG,
    START_SECONDS,
    Server,
    free_port,
    last_log_lines,
    only_child,
    running,
    work_folder,
)
from bench.servers.tls import ours_missing
from testkit.polling import eventually

TLS = "1.3"  # the version of all clients with TLS
OURS, PLAIN, OURS_TLS, PLAIN_TLS = "flashpol", "flashpol, no WebSocket", "flashpol, wss", "flashpol, TLS alone"
HAPROXY, NGINX, NGINX_TLS, WEBSOCKIFY = "HAProxy", "nginx", "nginx, wss", "websockify"
# A client that is late is relayed as it is after first_byte_timeout; and while more handshakes begin than end, the
# newest come first. Here the machine is what makes clients late, since it runs them too.
PATIENT = "first_byte_timeout = 60.0\nrequest_timeout = 60.0\ntls_handshake_timeout = 60.0"
# The policy of the bench grants this port to the origin that the clients name.
WEBSOCKET = f'websocket = [{{ path = "*", port = 1935 }}]\n{PATIENT}'
HAPROXY_SECTIONS = """frontend websocket
    mode http
    bind 127.0.0.1:{port} backlog {backlog}
    timeout client 1h
    timeout http-request 10s
    default_backend application
backend application
    mode http
    timeout server 1h
    timeout tunnel 1h
    server application 127.0.0.1:{application}
"""
NGINX_LINES = """listen 127.0.0.1:{port} backlog={backlog}{ssl};
location / {{
    proxy_pass http://127.0.0.1:{application};
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_set_header Host $host;
    proxy_read_timeout 1h;
}}
"""
NGINX_CERTIFICATE = "ssl_certificate {chain}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;\n"
# `pip install --target build/bench/websockify websockify`, since it is no dependency of this project.
WEBSOCKIFY_FOLDER = build.BUILD / "websockify"
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: bench.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Origin: https://games.example.com\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass(frozen=True)
class Applications:
    """Ports of the two applications: of one for plain bytes, and of one that speaks WebSocket."""

    plain: int
    websocket: int


@dataclass(frozen=True)
class WebSocketPeer:
    """A server and how its clients speak. start: with a CPU or None, the certificate and the applications.

    missing: returns what is not installed here, or None. tls: the clients' version, empty: none.
    """

    name: str
    start: Callable[[int | None, Certificate, Applications], AbstractContextManager[Server]]
    missing: Callable[[], str | None]
    websocket: bool = True
    tls: str = ""

    @property
    def ours(self) -> bool:
        """Whether it is flashpol."""
        return self.name.startswith(OURS)


@contextmanager
def haproxy(cpu: int | None, certificate: Certificate, applications: Applications) -> Iterator[Server]:
    """HAProxy in HTTP mode, which becomes a tunnel after status 101."""
    del certificate
    port = free_port()
    sections = HAPROXY_SECTIONS.format(port=port, backlog=BACKLOG, application=applications.websocket)
    with (
        work_folder() as folder,
        haproxy_started(haproxy_configuration(sections, connections=SESSIONS), folder, cpu) as process,
    ):
        seconds = wait_for_upgrade(HAPROXY, process, port, folder)
        yield Server(HAPROXY, port, process.pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


@contextmanager
def nginx(cpu: int | None, certificate: Certificate | None, applications: Applications) -> Iterator[Server]:
    """nginx with `proxy_pass` and the lines for WebSocket. certificate: None: without TLS."""
    name, port = NGINX_TLS if certificate else NGINX, free_port()
    lines = NGINX_LINES.format(
        port=port, backlog=BACKLOG, ssl=" ssl" if certificate else "", application=applications.websocket
    )
    if certificate:
        lines += NGINX_CERTIFICATE.format(chain=certificate.chain, key=certificate.key)
    with work_folder() as folder, nginx_started(http_configuration(folder, lines), folder, cpu) as process:
        seconds = wait_for_upgrade(name, process, port, folder, tls=bool(certificate))
        pid = only_child(name, process.pid)
        yield Server(name, port, pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


@contextmanager
def websockify(cpu: int | None, certificate: Certificate, applications: Applications) -> Iterator[Server]:
    """websockify as its users run it: one process accepts, and starts another for each session."""
    del certificate
    port = free_port()
    command = ["env", f"PYTHONPATH={WEBSOCKIFY_FOLDER}", sys.executable, "-m", "websockify"]
    command += [f"127.0.0.1:{port}", f"127.0.0.1:{applications.plain}"]
    with work_folder() as folder, running(WEBSOCKIFY, command, folder, cpu) as process:
        seconds = wait_for_upgrade(WEBSOCKIFY, process, port, folder)
        yield Server(
            WEBSOCKIFY, port, process.pid, folder / "expected", seconds, parent=process.pid, ports=(port,), forks=True
        )  # fmt: skip


def wait_for_upgrade(
    name: str, process: "subprocess.Popen[bytes]", port: int, folder: Path, *, tls: bool = False
) -> float:
    """Try until a WebSocket is opened. Returns the seconds since the call, which follows exec at once."""
    begin = time.monotonic()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def opened() -> bool:
        if process.poll() is not None:
            raise BenchError(f"{name} ended at once with status {process.returncode}: {last_log_lines(folder)}")
        try:
            with socket.create_connection(("127.0.0.1", port), START_SECONDS) as plain:
                connection = context.wrap_socket(plain) if tls else plain
                with connection:
                    connection.sendall(REQUEST)
                    return connection.recv(4096).startswith(b"HTTP/1.1 101 ")
        except OSError:
            return False

    eventually(opened, f"{name} opens a WebSocket on port {port}", START_SECONDS, error=BenchError)
    return time.monotonic() - begin


def _flashpol(name: str, *, websocket: bool, tls: bool) -> WebSocketPeer:
    @contextmanager
    def start(cpu: int | None, certificate: Certificate, applications: Applications) -> Iterator[Server]:
        listener = WEBSOCKET if websocket else PATIENT
        files = certificate if tls else None
        with flashpol_relay(cpu, (applications.plain,), certificate=files, listener=listener) as server:
            yield replace(server, name=name)

    return WebSocketPeer(name, start, ours_missing if tls else lambda: None, websocket, TLS if tls else "")


def _nginx_missing() -> str | None:
    return None if nginx_program() else "nginx is not installed"


def _websockify_missing() -> str | None:
    if (WEBSOCKIFY_FOLDER / "websockify").exists():
        return None
    return f"it is not installed (pip install --target {WEBSOCKIFY_FOLDER.relative_to(build.HERE.parent)} websockify)"


PEERS = (
    _flashpol(OURS, websocket=True, tls=False),
    _flashpol(PLAIN, websocket=False, tls=False),
    WebSocketPeer(HAPROXY, haproxy, lambda: haproxy_missing("EPOLL")),
    WebSocketPeer(NGINX, lambda cpu, _, applications: nginx(cpu, None, applications), _nginx_missing),
    WebSocketPeer(WEBSOCKIFY, websockify, _websockify_missing),
    _flashpol(OURS_TLS, websocket=True, tls=True),
    _flashpol(PLAIN_TLS, websocket=False, tls=True),
    WebSocketPeer(NGINX_TLS, nginx, _nginx_missing, tls=TLS),
)
