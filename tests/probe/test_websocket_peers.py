"""Real servers and proxies: no finding about those that pass a WebSocket on, the right one about the others."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import broken
import pytest
import websocket_servers as servers
from loopback import Server, closed_port, look_through
from test_peers import program, running

from flashpol.probe import Observation, findings
from flashpol.probe.findings import Finding
from testkit.certificates import CertificateFiles, make_ca
from testkit.processes import Flashpol, free_port

pytestmark = pytest.mark.slow

ORIGIN = "https://www.example.com"
PASSED_ON = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'


def ask(port: int, scheme: str = "ws", host: str = "127.0.0.1", **asked: Any) -> Observation:
    return look_through(f"{scheme}://{host}:{port}/chess", ORIGIN, **asked)


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation)}


def only(observation: Observation) -> Finding:
    [finding] = findings.of(observation)
    return finding


def bridge(connection: socket.socket) -> None:
    """A bridge that is right: 101 with an upgrade, and 426 without."""
    request = servers.head_of(connection)
    if "upgrade" in servers.field(request, "Connection").lower():
        connection.sendall(servers.accepted(request))
        servers.echoing(connection)
    else:
        connection.sendall(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
        broken.end(connection)


# ------------------------------------------------------------------------------------------------------- flashpol

CONFIGURATION = """
[policies.games]
grants = [{{domain = "www.example.com", ports = "7000"}}]
{certificate}
[[listeners]]
address = "127.0.0.1:0"
policy = "games"
upstream = "127.0.0.1:{upstream}"
{tls}
[[listeners.websocket]]
path = "/chess"
port = 7000
"""


@contextlib.contextmanager
def flashpol(folder: Path, upstream: int, files: CertificateFiles | None = None) -> Iterator[int]:
    inside = {"certificate": "", "tls": ""}
    if files is not None:
        inside = {"certificate": files.toml(), "tls": 'tls = ["games"]'}
    (folder / "flashpol.toml").write_text(CONFIGURATION.format(upstream=upstream, **inside))
    with Flashpol("-c", folder / "flashpol.toml", listen=()) as server:
        yield server.place[1]


def test_flashpol_has_no_findings(tmp_path: Path) -> None:
    with Server(servers.deaf) as application, flashpol(tmp_path, application.port) as port:
        assert codes(ask(port, thorough=True)) == set()


def test_flashpol_inside_tls_has_no_findings(tmp_path: Path) -> None:
    pytest.importorskip("flashpol._tls", reason="built without libssl-dev")
    ca = make_ca(tmp_path / "ca")
    files = ca.issue("127.0.0.1", intermediate=True)
    with Server(servers.deaf) as application, flashpol(tmp_path, application.port, files) as port:
        assert codes(ask(port, "wss", ca=str(ca.file))) == set()
        assert codes(ask(port)) == set(), "plain text is served beside TLS"


def test_flashpol_refuses_origins_that_its_policy_does_not_grant(tmp_path: Path) -> None:
    with Server(servers.deaf) as application, flashpol(tmp_path, application.port) as port:
        seen = look_through(f"ws://127.0.0.1:{port}/chess", ORIGIN, "https://evil.example", "null")
    found = findings.of(seen)
    assert [finding.code for finding in found] == ["PB622", "PB622"]
    assert "no grant is for content from evil.example" in found[0].message


def test_flashpol_without_its_application_says_so(tmp_path: Path) -> None:
    with closed_port() as closed, flashpol(tmp_path, closed) as port:
        finding = only(ask(port))
    assert (finding.code, "502 Bad Gateway" in finding.message) == ("PB625", True)


def test_flashpol_behind_nginx_as_it_comes_loses_the_upgrade(tmp_path: Path) -> None:
    with Server(servers.deaf) as application, flashpol(tmp_path, application.port) as upstream:
        with nginx(tmp_path, upstream) as port:
            finding = only(ask(port))
        assert (finding.code, "426 Upgrade Required" in finding.message) == ("PB620", True)
        with nginx(tmp_path, upstream, PASSED_ON) as port:
            assert codes(ask(port)) == set()


# ---------------------------------------------------------------------------------------------------------- nginx


@contextlib.contextmanager
def nginx(folder: Path, upstream: int, directives: str = "", listen: str = "") -> Iterator[int]:
    command, port = program("nginx"), free_port()
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/stderr crit;\n"
        f"events {{ worker_connections 100; }}\nhttp {{ access_log off;\n{places}"
        f"server {{ listen 127.0.0.1:{port} {listen};\n"
        f"location /chess {{ proxy_pass http://127.0.0.1:{upstream}; {directives} }} }} }}\n"
    )
    with running([command, "-p", folder, "-e", folder / "stderr", "-c", folder / "nginx.conf"], port, folder):
        yield port


def test_nginx_as_it_comes_loses_the_upgrade(tmp_path: Path) -> None:
    with Server(bridge) as server, nginx(tmp_path, server.port) as port:
        finding = only(ask(port))
    assert finding.code == "PB620"
    assert "proxy_set_header Upgrade $http_upgrade" in finding.instead


def test_nginx_that_passes_the_upgrade_on_has_no_findings(tmp_path: Path) -> None:
    with Server(bridge) as server, nginx(tmp_path, server.port, PASSED_ON) as port:
        assert codes(ask(port)) == set()


def test_nginx_without_its_upstream_does_not_reach_the_application(tmp_path: Path) -> None:
    with closed_port() as closed, nginx(tmp_path, closed, PASSED_ON) as port:
        assert only(ask(port)).code == "PB625"


def test_nginx_with_tls_is_told_from_one_without(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    files = ca.issue("127.0.0.1", intermediate=True)
    inside = f"ssl_certificate {files.chain}; ssl_certificate_key {files.key};"
    with Server(bridge) as server, nginx(tmp_path, server.port, PASSED_ON, f"ssl; {inside[:-1]}") as port:
        assert codes(ask(port, "wss", ca=str(ca.file))) == set()
        assert only(ask(port, "ws")).code == "PB607"
    (tmp_path / "plain").mkdir()
    with Server(bridge) as server, nginx(tmp_path / "plain", server.port, PASSED_ON) as port:
        assert only(ask(port, "wss", ca=str(ca.file))).code == "PB606"


# -------------------------------------------------------------------------------------------------------- HAProxy


@contextlib.contextmanager
def haproxy(folder: Path, upstream: int, rules: str = "") -> Iterator[int]:
    command, port = program("haproxy"), free_port()
    (folder / "haproxy.cfg").write_text(
        "defaults\n  mode http\n  timeout client 5s\n  timeout connect 1s\n  timeout server 5s\n  timeout tunnel 5s\n"
        f"listen chess\n  bind 127.0.0.1:{port}\n{rules}  server one 127.0.0.1:{upstream}\n"
    )
    with running([command, "-db", "-q", "-f", folder / "haproxy.cfg"], port, folder):
        yield port


def test_haproxy_has_no_findings(tmp_path: Path) -> None:
    with Server(bridge) as server, haproxy(tmp_path, server.port) as port:
        assert codes(ask(port)) == set()


def test_haproxy_that_deletes_the_upgrade_loses_it(tmp_path: Path) -> None:
    rules = "  http-request del-header upgrade\n  http-request del-header connection\n"
    with Server(bridge) as server, haproxy(tmp_path, server.port, rules) as port:
        assert only(ask(port)).code == "PB620"


def test_haproxy_without_its_server_does_not_reach_the_application(tmp_path: Path) -> None:
    with closed_port() as closed, haproxy(tmp_path, closed) as port:
        finding = only(ask(port))
    assert (finding.code, "503 Service Unavailable" in finding.message) == ("PB625", True)


def test_haproxy_that_redirects_to_tls_is_a_redirect(tmp_path: Path) -> None:
    with Server(bridge) as server, haproxy(tmp_path, server.port, "  redirect scheme https\n") as port:
        finding = only(ask(port))
    assert (finding.code, finding.instead[:12]) == ("PB624", "write wss://")


# --------------------------------------------------------------------------------------------------------- others


def test_apache_passes_an_upgrade_on_only_if_told_to(tmp_path: Path) -> None:
    command, port = program("apache2"), free_port()
    modules = Path("/usr/lib/apache2/modules")
    names = ("mpm_event", "authz_core", "proxy", "proxy_http")
    load = "".join(f"LoadModule {name}_module {modules}/mod_{name}.so\n" for name in names)
    for number, (more, expected) in enumerate((("", {"PB620"}), (" upgrade=websocket", set()))):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Server(bridge) as server:
            (folder / "apache.conf").write_text(
                f"{load}ServerRoot {folder}\nServerName localhost\nPidFile {folder}/pid\nErrorLog {folder}/error\n"
                f"DefaultRuntimeDir {folder}\nListen 127.0.0.1:{port}\n"
                f'ProxyPass "/" "http://127.0.0.1:{server.port}/"{more}\n'
            )
            with running([command, "-X", "-f", folder / "apache.conf"], port, folder):
                assert codes(ask(port)) == expected


def test_squid_in_front_loses_the_upgrade(tmp_path: Path) -> None:
    command, port = program("squid"), free_port()
    with Server(bridge) as server:
        (tmp_path / "squid.conf").write_text(
            f"http_port 127.0.0.1:{port} accel defaultsite=127.0.0.1\nhttp_access allow all\ncache deny all\n"
            f"cache_peer 127.0.0.1 parent {server.port} 0 no-query originserver name=one\npid_filename none\n"
            f"cache_log {tmp_path}/cache.log\naccess_log none\nvisible_hostname test\ncoredump_dir {tmp_path}\n"
            "shutdown_lifetime 0 seconds\nnetdb_filename none\n"
        )
        tmp_path.chmod(0o777)
        with running([command, "-N", "-f", tmp_path / "squid.conf"], port, tmp_path):
            finding = only(ask(port))
    assert finding.code == "PB620"
    assert "http_upgrade_request_protocols" in finding.instead


def test_tinyproxy_in_front_loses_the_upgrade(tmp_path: Path) -> None:
    command, port = program("tinyproxy"), free_port()
    with Server(bridge) as server:
        (tmp_path / "tinyproxy.conf").write_text(
            f"Port {port}\nListen 127.0.0.1\nTimeout 10\nMaxClients 10\nReverseOnly Yes\n"
            f'ReversePath "/" "http://127.0.0.1:{server.port}/"\n'
        )
        with running([command, "-d", "-c", tmp_path / "tinyproxy.conf"], port, tmp_path):
            finding = only(ask(port))
    assert finding.code == "PB620"
    assert "tinyproxy always drops Upgrade" in finding.instead


def test_websockify_opens_before_it_has_an_application(tmp_path: Path) -> None:
    command, port = program("websockify"), free_port()
    with closed_port() as closed, running([command, f"127.0.0.1:{port}", f"127.0.0.1:{closed}"], port, tmp_path):
        assert only(ask(port)).code == "PB640"
    with (
        Server(servers.deaf) as server,
        running([command, f"127.0.0.1:{port}", f"127.0.0.1:{server.port}"], port, tmp_path),
    ):
        assert codes(ask(port)) == set()
