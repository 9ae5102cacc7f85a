"""Servers that end TLS: relays in front of an application, and policy servers. Each has one worker or thread.

All have the same certificate. Session tickets and caches are as each server's defaults have them: after a handshake of
TLS 1.3, HAProxy, nginx and stunnel send two tickets, and flashpol sends none. Of the peers only nginx can be configured
to send none there; that variant is a peer too.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.servers.certificate import Certificate
from bench.servers.haproxy import configuration as haproxy_configuration
from bench.servers.haproxy import lua, policy_port
from bench.servers.haproxy import missing as haproxy_missing
from bench.servers.haproxy import started as haproxy_started
from bench.servers.nginx import configuration as nginx_configuration
from bench.servers.nginx import missing as nginx_missing
from bench.servers.nginx import policy_lines
from bench.servers.nginx import started as nginx_started
from bench.servers.ours import flashpol
from bench.servers.relays import SESSIONS, flashpol_relay
from bench.servers.running import (
    BACKLOG,
    Server,
    free_port,
    only_child,
    running,
    wait_for_handshake,
    work_folder,
)

OURS, HAPROXY, NGINX, NGINX_WITHOUT_TICKETS, STUNNEL = "flashpol", "HAProxy", "nginx", "nginx, no tickets", "stunnel"
HAPROXY_RELAY = """frontend tls
    bind 127.0.0.1:{port} backlog {backlog} ssl crt {certificate}
    timeout client 1h
    default_backend application
backend application
    timeout server 1h
    server application 127.0.0.1:{application}
"""
NGINX_LINES = """listen 127.0.0.1:{port} backlog={backlog} ssl;
ssl_certificate {chain}; ssl_certificate_key {key};
ssl_protocols TLSv1.2 TLSv1.3;
{lines}
"""
STUNNEL_CONFIGURATION = """foreground = yes
pid =
debug = err
[tls]
accept = 127.0.0.1:{port}
connect = 127.0.0.1:{application}
cert = {chain}
key = {key}
"""
NO_TICKETS = "ssl_conf_command NumTickets 0;"


@dataclass(frozen=True)
class TlsPeer:
    """A server that ends TLS. start: with a CPU or None, the certificate and, if it relays, the application's port.

    missing: returns what is not installed here, or None.
    """

    name: str
    start: Callable[..., AbstractContextManager[Server]]
    missing: Callable[[], str | None]


@contextmanager
def haproxy_relay(cpu: int | None, certificate: Certificate, application: int) -> Iterator[Server]:
    """HAProxy in TCP mode, without inspection."""
    port = free_port()
    sections = HAPROXY_RELAY.format(port=port, backlog=BACKLOG, certificate=certificate.both, application=application)
    with (
        work_folder() as folder,
        haproxy_started(haproxy_configuration(sections, connections=SESSIONS), folder, cpu) as process,
    ):
        seconds = wait_for_handshake(HAPROXY, process, port, folder)
        yield Server(HAPROXY, port, process.pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


@contextmanager
def nginx_relay(cpu: int | None, certificate: Certificate, application: int) -> Iterator[Server]:
    """nginx's stream module, which ends TLS."""
    with work_folder() as folder, _nginx(NGINX, cpu, certificate, folder, _proxy(application)) as server:
        yield server


@contextmanager
def stunnel_relay(cpu: int | None, certificate: Certificate, application: int) -> Iterator[Server]:
    """stunnel: a thread for each connection."""
    port = free_port()
    with work_folder() as folder:
        (folder / "stunnel.conf").write_text(
            STUNNEL_CONFIGURATION.format(
                port=port, application=application, chain=certificate.chain, key=certificate.key
            )
        )
        with running(STUNNEL, [str(_stunnel_program()), str(folder / "stunnel.conf")], folder, cpu) as process:
            seconds = wait_for_handshake(STUNNEL, process, port, folder)
            yield Server(STUNNEL, port, process.pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


@contextmanager
def nginx_policy(cpu: int | None, certificate: Certificate, name: str = NGINX, more: str = "") -> Iterator[Server]:
    """nginx's stream `return` inside TLS, after it has read the request; and on another port without TLS.

    more: lines of the configuration of TLS.
    """
    plain = free_port()
    with work_folder() as folder:
        policy = policy_lines(folder)
        beside = f"listen 127.0.0.1:{plain} backlog={BACKLOG};\n{policy}"
        with _nginx(name, cpu, certificate, folder, f"{more}\n{policy}", beside) as server:
            yield replace(server, plain=plain)


@contextmanager
def haproxy_policy(cpu: int | None, certificate: Certificate) -> Iterator[Server]:
    """HAProxy's Lua service inside TLS."""
    port = free_port()
    with work_folder() as folder:
        text = haproxy_configuration(policy_port(port, f"ssl crt {certificate.both}"), more=lua(folder))
        with haproxy_started(text, folder, cpu) as process:
            seconds = wait_for_handshake(HAPROXY, process, port, folder)
            yield Server(HAPROXY, port, process.pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


def ours_missing() -> str | None:
    """Why flashpol cannot speak TLS here, or None."""
    return None if importlib.util.find_spec("flashpol._tls") else "flashpol was built without TLS (libssl-dev)"


def _nginx_policy_missing() -> str | None:
    return nginx_missing("stream_ssl_module") or nginx_missing()


def _stunnel_missing() -> str | None:
    return None if _stunnel_program() else "stunnel is not installed"


def _stunnel_program() -> str | None:
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    return shutil.which("stunnel4", path=path) or shutil.which("stunnel", path=path)


def _proxy(application: int) -> str:
    return f"proxy_pass 127.0.0.1:{application}; proxy_timeout 1h;"


@contextmanager
def _nginx(
    name: str, cpu: int | None, certificate: Certificate, folder: Path, lines: str, *more: str
) -> Iterator[Server]:
    port = free_port()
    first = NGINX_LINES.format(port=port, backlog=BACKLOG, chain=certificate.chain, key=certificate.key, lines=lines)
    with nginx_started(nginx_configuration(folder, first, *more), folder, cpu) as process:
        seconds = wait_for_handshake(name, process, port, folder)
        pid = only_child(name, process.pid)
        yield Server(name, port, pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


RELAYS = (
    TlsPeer(
        OURS,
        lambda cpu, certificate, application: flashpol_relay(cpu, (application,), certificate=certificate),
        ours_missing,
    ),
    TlsPeer(HAPROXY, haproxy_relay, lambda: haproxy_missing("OPENSSL")),
    TlsPeer(NGINX, nginx_relay, lambda: nginx_missing("stream_ssl_module")),
    TlsPeer(STUNNEL, stunnel_relay, _stunnel_missing),
)
POLICIES = (
    TlsPeer(OURS, lambda cpu, certificate: flashpol(cpu, certificate=certificate), ours_missing),
    TlsPeer(NGINX, nginx_policy, _nginx_policy_missing),
    TlsPeer(
        NGINX_WITHOUT_TICKETS,
        lambda cpu, certificate: nginx_policy(cpu, certificate, NGINX_WITHOUT_TICKETS, NO_TICKETS),
        _nginx_policy_missing,
    ),
    TlsPeer(HAPROXY, haproxy_policy, lambda: haproxy_missing("OPENSSL") or haproxy_missing("LUA")),
)
