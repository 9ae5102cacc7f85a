"""Servers for tunnel sessions: flashpol with RTMPT, nginx's reply to the same requests, nginx's RTMP module."""

import importlib.util
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.servers.nginx import MODULES, http_configuration, nginx_program, rtmp_configuration, started, wait_for_worker
from bench.servers.relays import flashpol_relay
from bench.servers.running import BACKLOG, Server, free_port, work_folder

OURS, NGINX, NGINX_RTMP = "flashpol", "nginx", "nginx, RTMP"
# One byte, as the reply to a poll without data. The limits on kept connections would end them in the middle of a turn.
NGINX_LINES = """listen 127.0.0.1:{port} backlog={backlog};
keepalive_requests 1000000000; keepalive_timeout 1h;
location / {{ default_type application/x-fcs; return 200 "\x01"; }}
"""
RTMP_LINES = "listen 127.0.0.1:{port}; application live {{ live on; record all; record_path {recordings}; }}"
# Sessions rest between turns, and this machine also runs the clients.
LISTENER = """rtmpt = true
rtmpt_hold = {hold:.1f}
rtmpt_session_timeout = {session_timeout:.1f}
http_idle_timeout = 600.0
first_byte_timeout = 60.0
request_timeout = 60.0
"""


def flashpol_tunnel(
    cpu: int | None,
    applications: tuple[int, ...],
    *,
    workers: int = 1,
    hold: float = 0.0,
    session_timeout: float = 600.0,
) -> AbstractContextManager[Server]:
    """One shared port with RTMPT. hold, session_timeout: seconds."""
    listener = LISTENER.format(hold=hold, session_timeout=session_timeout)
    return flashpol_relay(cpu, applications, workers=workers, listener=listener)


@contextmanager
def nginx_return(cpu: int | None) -> Iterator[Server]:
    """nginx with `return 200`: the least that an HTTP server does for such a request."""
    with work_folder() as folder:
        port = free_port()
        text = http_configuration(folder, NGINX_LINES.format(port=port, backlog=BACKLOG))
        with started(text, folder, cpu) as process:
            pid, seconds = wait_for_worker(NGINX, process, folder)
            yield Server(NGINX, port, pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


@contextmanager
def nginx_rtmp(cpu: int | None, recordings: Path) -> Iterator[Server]:
    """nginx's RTMP module, which writes what is published to rtmp://…/live/NAME into NAME.flv of this folder."""
    with work_folder() as folder:
        port = free_port()
        text = rtmp_configuration(folder, RTMP_LINES.format(port=port, recordings=recordings))
        with started(text, folder, cpu) as process:
            pid, seconds = wait_for_worker(NGINX_RTMP, process, folder)
            yield Server(NGINX_RTMP, port, pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


def ours_missing() -> str | None:
    """Why flashpol cannot have tunnel sessions here, or None."""
    return None if importlib.util.find_spec("flashpol._tunnel") else "this flashpol has no RTMPT"


def nginx_missing() -> str | None:
    """Why nginx cannot run here, or None."""
    return None if nginx_program() else "nginx is not installed"


def nginx_rtmp_missing() -> str | None:
    """Why nginx's RTMP module cannot run here, or None."""
    if nginx_missing():
        return nginx_missing()
    found = any(Path(folder, "ngx_rtmp_module.so").exists() for folder in MODULES)
    return None if found else "nginx's RTMP module is not installed (Debian: libnginx-mod-rtmp)"
