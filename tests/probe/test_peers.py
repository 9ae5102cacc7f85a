"""Real servers: no false alarms on correct ones, the right finding on the others."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from broken import OPEN_POLICY, POLICY, SILVERLIGHT, answering
from loopback import Server, look

from flashpol.probe import Observation, Timeouts, findings
from flashpol.probe.model import Role
from testkit.polling import eventually
from testkit.processes import Flashpol, free_port

NGINX_MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"no {name} here")
    return found


@contextlib.contextmanager
def running(command: Sequence[str | Path], port: int, folder: Path) -> Iterator[int]:
    def listens() -> bool:
        assert process.poll() is None, (folder / "stderr").read_text()
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", port)) == 0

    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd=folder
        )
    try:
        eventually(listens, f"{command[0]} on {port}")
        yield port
    finally:
        process.terminate()
        process.wait(5)


@contextlib.contextmanager
def nginx(folder: Path, directive: str) -> Iterator[int]:
    """stream `return`; `directive` decides whether the request is read before that."""
    command, port = program("nginx"), free_port()
    modules = [Path(place, "ngx_stream_module.so") for place in NGINX_MODULES]
    load = "".join(f"load_module {module};\n" for module in modules if module.exists())
    (folder / "nginx.conf").write_bytes(
        f"{load}daemon off; master_process off; pid {folder}/pid; error_log {folder}/stderr crit;\n"
        f"events {{ worker_connections 100; }}\nstream {{ server {{ listen 127.0.0.1:{port}; {directive}\n"
        f"return '{POLICY.decode()}\0'; }} }}\n".encode()
    )
    with running([command, "-p", folder, "-e", folder / "stderr", "-c", folder / "nginx.conf"], port, folder):
        yield port


@contextlib.contextmanager
def haproxy(folder: Path) -> Iterator[int]:
    """A Lua service that reads the 23 bytes, under a deadline."""
    command, port = program("haproxy"), free_port()
    (folder / "policy.xml").write_bytes(POLICY + b"\0")
    (folder / "policy.lua").write_text(
        f"local file = io.open('{folder}/policy.xml', 'rb')\nlocal policy = file:read('*a')\nfile:close()\n"
        "core.register_service('policy', 'tcp', function(applet)\n"
        "  if applet:receive(23) == '<policy-file-request/>\\0' then applet:send(policy) end\nend)\n"
    )
    (folder / "haproxy.cfg").write_text(
        f"global\n  lua-load {folder}/policy.lua\ndefaults\n  mode tcp\n  timeout client 2s\n  timeout connect 1s\n"
        f"  timeout server 2s\nfrontend policy\n  bind 127.0.0.1:{port}\n"
        "  tcp-request inspect-delay 2s\n  tcp-request content use-service lua.policy if { req.len ge 23 }\n"
        "  tcp-request content reject if WAIT_END\n"
    )
    with running([command, "-db", "-q", "-f", folder / "haproxy.cfg"], port, folder):
        yield port


@contextlib.contextmanager
def socat(folder: Path, what: str) -> Iterator[int]:
    """A shell for each connection."""
    command, port = program("socat"), free_port()
    (folder / "policy.xml").write_bytes(POLICY + b"\0")
    with running([command, f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork", f"SYSTEM:{what}"], port, folder):
        yield port


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation)} - {"FP507"}  # master-only is what is meant here


def thoroughly(port: int) -> Observation:
    return look(port, thorough=True, idle=5.0)


@pytest.mark.slow
def test_flashpol_has_no_findings(tmp_path: Path) -> None:
    for policy, ask in ((POLICY, thoroughly), (OPEN_POLICY, look)):
        (tmp_path / "policy.xml").write_bytes(policy)
        with Flashpol("--policy", tmp_path / "policy.xml") as server:
            assert codes(ask(server.place[1])) == set()


def test_flashpol_and_probe_report_the_same_sha256(tmp_path: Path) -> None:
    (tmp_path / "policy.xml").write_bytes(OPEN_POLICY + b"\n")
    with Flashpol("--policy", tmp_path / "policy.xml") as server:
        exposed = server.get("/metrics").body.decode()
        [target] = look(server.place[1]).all_targets(Role.MASTER)
    assert f'sha256="{target.reply.sha256}"' in exposed


@pytest.mark.slow
def test_flashpol_with_silverlight_dialect_has_no_findings(tmp_path: Path) -> None:
    (tmp_path / "policy.xml").write_bytes(SILVERLIGHT)
    with Server(answering()) as flash, Flashpol("--policy", tmp_path / "policy.xml", "--dialect", "silverlight") as s:
        assert codes(look(flash.port, s.place[1])) == set()
        assert codes(look(flash.port, s.place[1], named=("silverlight",), thorough=True, idle=5.0)) == set()


@pytest.mark.slow
def test_threaded_server_has_only_tests_by_hand() -> None:
    with Server(answering()) as server:
        assert codes(thoroughly(server.port)) == {"PB309"}  # it wants the NUL


def test_nginx_that_reads_first_replies_to_any_request(tmp_path: Path) -> None:
    """`ssl_preread` answers as soon as the bytes are no TLS: any request, or a part of one."""
    with nginx(tmp_path, "ssl_preread on; preread_timeout 2s;") as port:
        found = codes(thoroughly(port))
    assert {"PB308", "PB312"} <= found
    assert not found & {"PB301", "PB302", "PB303", "PB304", "PB313", "PB314"}


def test_nginx_that_does_not_read_speaks_first_and_resets(tmp_path: Path) -> None:
    with nginx(tmp_path, "") as port:
        found = codes(thoroughly(port))
    assert "PB307" in found
    assert found & {"PB301", "PB302", "PB310"}, "RST, or a reply lost to it"


def test_haproxy_with_lua_has_no_findings(tmp_path: Path) -> None:
    with haproxy(tmp_path) as port:
        assert codes(look(port)) == set()


def test_socat_that_never_reads_speaks_first(tmp_path: Path) -> None:
    with socat(tmp_path, "cat policy.xml") as port:
        assert "PB307" in codes(look(port))


def test_socat_that_reads_a_line_wants_a_newline(tmp_path: Path) -> None:
    with socat(tmp_path, "read line; cat policy.xml") as port:
        assert "PB305" in codes(look(port, timeouts=Timeouts(reply=1.0)))


def test_socat_that_reads_23_bytes_has_no_findings(tmp_path: Path) -> None:
    with socat(tmp_path, "head -c 23 >/dev/null; cat policy.xml") as port:
        assert codes(look(port)) == set()
