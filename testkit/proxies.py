"""HTTP proxies between a client of RTMPT and a server, as administrators run them, and what is known of each.

>>> with PROXIES["squid"].start(server.place) as proxy:
...     RtmptClient(proxy.place, absolute=proxy.absolute).open()

A reverse proxy stands in for the server, and a forward proxy gets absolute URIs. Each runs until its block ends, as the
user `nobody` if the tests run as root, on a free port of loopback. `chain` puts one in front of another.
"""

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from testkit.polling import DEADLINE
from testkit.processes import free_port
from testkit.programs import find, needs, running, wait_for

Address = tuple[str, int]
APACHE_MODULES = Path("/usr/lib/apache2/modules")
PRIVOXY = Path("/etc/privoxy")


@dataclass(frozen=True)
class Running:
    """A proxy in front of a server."""

    place: Address
    absolute: str = ""  # what stands before the path in requests, if it is a forward proxy

    @property
    def url(self) -> str:
        """Where clients of media find the server, without a scheme: HOST:PORT."""
        return self.absolute.partition("://")[2] or f"{self.place[0]}:{self.place[1]}"

    @property
    def http_proxy(self) -> str:
        """The environment variable for ffmpeg; empty if it is a reverse proxy."""
        return f"http://{self.place[0]}:{self.place[1]}" if self.absolute else ""


# What starts one: in a folder of its own, on a port, in front of a server. A forward proxy without `server` connects to
# where the URI says, and one with it asks a forward proxy there.
Configure = Callable[[Path, int, Address | None], tuple[object, ...]]


@dataclass(frozen=True)
class Proxy:
    """One proxy with one configuration, and what it makes of RTMPT: tests/clients/test_rtmpt_proxies.py has the proof.

    forward: it gets absolute URIs. minor: of HTTP/1.minor towards the server. keeps_clients: the connection of a client
    stays open after a reply. client_requests: after so many it is closed; 0: never. keeps_servers: a connection to the
    server has more than one request. shares_servers: also those of several clients; None: it may, once a client is
    gone. pipelines: of pipelined requests all get replies; otherwise the first one only, and the connection is closed.
    names, reply_names: field names of requests and of replies are "kept" or "lower". forwarded_for: it appends the
    client's address to X-Forwarded-For; otherwise it passes on what the client wrote. via: it adds Via. host: "client"
    if Host is passed on, "server" if it becomes the server's address, or what else it says.
    """

    name: str
    program: str
    configure: Configure = field(repr=False)
    forward: bool = False
    minor: int = 1
    keeps_clients: bool = True
    client_requests: int = 0
    keeps_servers: bool = True
    shares_servers: bool | None = False
    pipelines: bool = True
    names: str = "kept"
    reply_names: str = "kept"
    forwarded_for: bool = False
    via: bool = False
    host: str = "client"

    @contextmanager
    def start(self, server: Address) -> Iterator[Running]:
        with self._started(None if self.forward else server) as place:
            yield Running(place, f"http://{server[0]}:{server[1]}" if self.forward else "")

    @contextmanager
    def start_before(self, other: Running) -> Iterator[Running]:
        """In front of another proxy."""
        if not other.absolute:
            with self.start(other.place) as proxy:
                yield proxy
            return
        assert self.forward, f"{self.name} is a reverse proxy, so the forward proxy behind it would get no absolute URI"
        with self._started(other.place) as place:
            yield Running(place, other.absolute)

    @contextmanager
    def _started(self, server: Address | None) -> Iterator[Address]:
        # pytest closes its folders to other users, also those of a run that goes on, when another one begins.
        with TemporaryDirectory(prefix=f"{self.name}-", ignore_cleanup_errors=True) as name:
            folder, port, user = Path(name), free_port(), tuple[str, ...]()
            command = self.configure(folder, port, server)
            if os.geteuid() == 0:
                nobody = pwd.getpwnam("nobody")
                for path in (folder, *folder.iterdir()):
                    os.chown(path, nobody.pw_uid, nobody.pw_gid)
                user = ("setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups")
            log = folder / "proxy.log"
            with running(*user, find(self.program), *command, log=log, cwd=folder):
                try:
                    wait_for(("127.0.0.1", port), f"{self.name} listens")
                    yield "127.0.0.1", port
                except BaseException as error:
                    for path in (log, *folder.glob("*error*"), *folder.glob("*.log")):
                        error.add_note(f"{path.name} of {self.name}: {path.read_text(errors='replace')[-2000:]}")
                    raise


@contextmanager
def chain(server: Address, *proxies: Proxy) -> Iterator[Running]:
    """Proxies in a row, the client's first."""
    with ExitStack() as stack:
        *others, last = proxies
        current = stack.enter_context(last.start(server))
        for proxy in reversed(others):
            current = stack.enter_context(proxy.start_before(current))
        yield current


# ------------------------------------------------------------------------------------------------- the configurations


def _text(server: Address | None) -> str:
    assert server is not None
    return f"{server[0]}:{server[1]}"


def _squid(folder: Path, port: int, parent: Address | None) -> tuple[object, ...]:
    peer = f"cache_peer {parent[0]} parent {parent[1]} 0 no-query default\nnever_direct allow all\n" if parent else ""
    (folder / "squid.conf").write_text(
        f"http_port 127.0.0.1:{port}\nhttp_access allow all\ncache deny all\npid_filename none\n{peer}"
        f"cache_log {folder}/cache.log\naccess_log none\nvisible_hostname test\ncoredump_dir {folder}\n"
        "shutdown_lifetime 0 seconds\nnetdb_filename none\npinger_enable off\n"
    )
    # Its name is part of the names of its shared memory, which two of them cannot have at once.
    return "-N", "-n", f"on{port}", "-f", folder / "squid.conf"


def _tinyproxy(folder: Path, port: int, parent: Address | None) -> tuple[object, ...]:
    (folder / "tinyproxy.conf").write_text(
        f"Port {port}\nListen 127.0.0.1\nTimeout {DEADLINE:.0f}\nMaxClients 100\n"
        + (f"Upstream http {_text(parent)}\n" if parent else "")
    )
    return "-d", "-c", folder / "tinyproxy.conf"


def _privoxy(folder: Path, port: int, parent: Address | None) -> tuple[object, ...]:
    """With the timeouts of Debian's configuration, and without its filters."""
    (folder / "config").write_text(
        f"confdir {folder}\ntempldir {PRIVOXY}/templates\nlogdir {folder}\nlogfile log\ndebug 4096\n"
        f"listen-address 127.0.0.1:{port}\nkeep-alive-timeout 5\ntolerate-pipelining 1\nsocket-timeout 300\n"
        f"forward / {_text(parent) if parent else '.'}\n"
    )
    return "--no-daemon", folder / "config"


def _nginx(location: str, upstream: str = "") -> Configure:
    """SERVER in both is replaced by the server's address."""

    def configure(folder: Path, port: int, server: Address | None) -> tuple[object, ...]:
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        (folder / "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{ }}\n"
            f"http {{\naccess_log off;\n{temporary}{upstream}\n"
            f"server {{\nlisten 127.0.0.1:{port};\nlocation / {{ {location} }}\n}}\n}}\n".replace(
                "SERVER", _text(server)
            ).replace("SERVER", _text(server))
        )
        return "-p", folder, "-e", folder / "start.log", "-c", folder / "nginx.conf"

    return configure


ADJUSTED = ("Content-Length", "Content-Type", "Cache-Control", "Connection")


def _haproxy(adjusted: bool) -> Configure:
    def configure(folder: Path, port: int, server: Address | None) -> tuple[object, ...]:
        case = "".join(f"    h1-case-adjust {name.lower()} {name}\n" for name in ADJUSTED)
        (folder / "haproxy.cfg").write_text(
            f"global\n    maxconn 1000\n{case if adjusted else ''}"
            "defaults\n    mode http\n    timeout connect 3s\n    timeout client 60s\n    timeout server 60s\n"
            f"listen tunnel\n    bind 127.0.0.1:{port}\n    server media {_text(server)}\n"
            + ("    option h1-case-adjust-bogus-client\n" if adjusted else "")
        )
        return "-db", "-q", "-f", folder / "haproxy.cfg"

    return configure


def _apache(more: str) -> Configure:
    def configure(folder: Path, port: int, server: Address | None) -> tuple[object, ...]:
        modules = ("mpm_event", "authz_core", "proxy", "proxy_http")
        load = "".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so\n" for name in modules)
        (folder / "apache.conf").write_text(
            f"{load}ServerRoot {folder}\nServerName localhost\nPidFile {folder}/apache.pid\nErrorLog {folder}/error\n"
            f"DefaultRuntimeDir {folder}\nListen 127.0.0.1:{port}\nProxyPass / http://{_text(server)}/\n{more}"
        )
        return "-X", "-f", folder / "apache.conf"

    return configure


def _varnish(folder: Path, port: int, server: Address | None) -> tuple[object, ...]:
    host, number = server or ("", 0)
    vcl = folder / "default.vcl"
    vcl.write_text(f'vcl 4.1;\nbackend default {{ .host = "{host}"; .port = "{number}"; }}\n')
    sizes = ("-p", "vsl_space=1M", "-s", "malloc,1M")  # of its log and its cache
    return "-F", "-n", folder / "work", "-a", f"127.0.0.1:{port}", "-f", vcl, *sizes, "-j", "none"


ALL = [
    Proxy("squid", "squid", _squid, forward=True, keeps_servers=False, host="server", forwarded_for=True, via=True),
    Proxy(
        "tinyproxy", "tinyproxy", _tinyproxy, forward=True, keeps_clients=False, keeps_servers=False, pipelines=False,
        host="server", via=True,
    ),
    Proxy("privoxy", "privoxy", _privoxy, forward=True, keeps_servers=False, pipelines=False),
    Proxy(
        "nginx", "nginx", _nginx("proxy_pass http://SERVER;"), minor=0, client_requests=1000, keeps_servers=False,
        host="server",
    ),
    Proxy(
        "nginx-keepalive", "nginx",
        _nginx(
            'proxy_pass http://media; proxy_http_version 1.1; proxy_set_header Connection "";',
            "upstream media { server SERVER; keepalive 8; }",
        ),
        client_requests=1000, shares_servers=True, host="media",
    ),
    Proxy(
        "nginx-forwarded", "nginx",
        _nginx(
            "proxy_pass http://SERVER; proxy_set_header Host $http_host; "
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
        ),
        minor=0, client_requests=1000, keeps_servers=False, forwarded_for=True,
    ),
    Proxy("haproxy", "haproxy", _haproxy(False), shares_servers=None, names="lower", reply_names="lower"),
    Proxy("haproxy-adjusted", "haproxy", _haproxy(True), shares_servers=None, names="lower"),
    Proxy(
        "apache", "apache2", _apache(""), client_requests=101, shares_servers=True, host="server", forwarded_for=True
    ),
    Proxy(
        "apache-keepalive", "apache2", _apache("MaxKeepAliveRequests 0\n"), shares_servers=True, host="server",
        forwarded_for=True,
    ),
    Proxy("varnish", "varnishd", _varnish, shares_servers=True, forwarded_for=True),
]  # fmt: skip
PROXIES = {proxy.name: proxy for proxy in ALL}
EACH = [pytest.param(proxy, id=proxy.name, marks=needs(proxy.program)) for proxy in ALL]
