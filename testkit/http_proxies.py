"""Proxies in front of a server, with the configuration that docs/guide/websocket.md shows, or as they come.

Each is run until its block ends, on a port of loopback that the block is given.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.polling import DEADLINE
from testkit.processes import ROOT, free_port
from testkit.programs import find, running, wait_for

PAGE = ROOT / "docs" / "guide" / "websocket.md"
DOCUMENTED = "127.0.0.1:7000"  # flashpol's address in the page
APACHE_MODULES = Path("/usr/lib/apache2/modules")


def documented(language: str) -> str:
    """The page's only block of that language."""
    [text] = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return str(text)


def replaced(text: str, old: str, new: str) -> str:
    """Each change of what the page shows is one that must be possible."""
    assert old in text, f"the page has no {old!r}"
    return text.replace(old, new)


@contextmanager
def _listening(folder: Path, port: int, *command: object) -> Iterator[None]:
    with running(*command, log=folder / "proxy.log"):
        try:
            wait_for(("127.0.0.1", port), f"{command[0]} listens")
        except AssertionError as error:
            error.add_note((folder / "proxy.log").read_text())
            raise
        yield


@contextmanager
def nginx(folder: Path, server: str, more: str = "", location: str | None = None) -> Iterator[int]:
    """more: directives for the page's location. location: in place of it."""
    port = free_port()
    if location is None:
        location = replaced(replaced(documented("nginx"), DOCUMENTED, server), "}", f"{more} }}")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{port};\n{location}}}\n}}\n"
    )
    command = (find("nginx"), "-p", folder, "-e", folder / "start.log", "-c", folder / "nginx.conf")
    with _listening(folder, port, *command):
        yield port


@contextmanager
def haproxy(folder: Path, server: str, certificate: Path, idle: str = "60s") -> Iterator[int]:
    """The page's frontend has TLS. certificate: with its key, in one file. idle: `timeout tunnel`."""
    port = free_port()
    text = replaced(documented("haproxy"), DOCUMENTED, server)
    text = replaced(text, "bind :443", f"bind 127.0.0.1:{port}")
    text = replaced(text, "/etc/haproxy/games.example.com.pem", str(certificate))
    text = replaced(text, "timeout tunnel 60s", f"timeout tunnel {idle}")
    with _haproxy(folder, port, text):
        yield port


@contextmanager
def haproxy_tcp(folder: Path, server: str, send: str) -> Iterator[int]:
    """In TCP mode. send: `send-proxy` or `send-proxy-v2`."""
    port = free_port()
    text = (
        "defaults\n    mode tcp\n    timeout connect 3s\n    timeout client 60s\n    timeout server 60s\n"
        f"listen games\n    bind 127.0.0.1:{port}\n    server flashpol {server} {send}\n"
    )
    with _haproxy(folder, port, text):
        yield port


@contextmanager
def _haproxy(folder: Path, port: int, text: str) -> Iterator[int]:
    (folder / "haproxy.cfg").write_text(text)
    with _listening(folder, port, find("haproxy"), "-db", "-q", "-f", folder / "haproxy.cfg"):
        yield port


@contextmanager
def apache(folder: Path, server: str, more: str = "") -> Iterator[int]:
    port = free_port()
    modules = ("mpm_event", "authz_core", "proxy", "proxy_http")
    load = "".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so\n" for name in modules)
    (folder / "apache.conf").write_text(
        f"{load}ServerRoot {folder}\nServerName localhost\nPidFile {folder}/apache.pid\nErrorLog {folder}/error\n"
        f"DefaultRuntimeDir {folder}\nListen 127.0.0.1:{port}\n{more}\n"
        + replaced(documented("apache"), DOCUMENTED, server)
    )
    with _listening(folder, port, find("apache2"), "-X", "-f", folder / "apache.conf"):
        yield port


@contextmanager
def squid(folder: Path, server: str) -> Iterator[int]:
    port, (host, _, upstream) = free_port(), server.rpartition(":")
    (folder / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port} accel defaultsite={host}\nhttp_access allow all\ncache deny all\n"
        f"cache_peer {host} parent {upstream} 0 no-query originserver name=flashpol\npid_filename none\n"
        f"cache_log {folder}/cache.log\naccess_log none\nvisible_hostname test\ncoredump_dir {folder}\n"
        "shutdown_lifetime 0 seconds\nnetdb_filename none\n"
    )
    folder.chmod(0o777)  # it runs as the user proxy
    with _listening(folder, port, find("squid"), "-N", "-n", f"on{port}", "-f", folder / "squid.conf"):
        yield port


@contextmanager
def tinyproxy(folder: Path, server: str) -> Iterator[int]:
    port = free_port()
    (folder / "tinyproxy.conf").write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout {DEADLINE:.0f}\nMaxClients 10\nReverseOnly Yes\n"
        f'ReversePath "/" "http://{server}/"\n'
    )
    with _listening(folder, port, find("tinyproxy"), "-d", "-c", folder / "tinyproxy.conf"):
        yield port
