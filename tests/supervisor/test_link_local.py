"""Link-local addresses, which exist once on each interface: listeners, the admin endpoint, upstreams."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.namespaces import inside, network
from testkit.polling import eventually
from testkit.processes import Flashpol, command, one_line, run

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and iproute2"
)
PLACE = "fe80::84%host"
POLICY = ("--allow", "*:1935")


@pytest.fixture(scope="module")
def host() -> Iterator[int]:
    """A namespace in which the interface `host` has the address."""
    with network() as both:
        add = ["ip", "address", "add", f"{PLACE.partition('%')[0]}/64", "dev", "host", "nodad"]
        inside(both.host, lambda: subprocess.run(add, check=True, timeout=20))
        yield both.host


def connect(port: int) -> socket.socket:
    found = socket.getaddrinfo(PLACE, port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(found[0], found[1])
    sock.settimeout(10)
    sock.connect(found[4])
    return sock


def ask(port: int, request: bytes = b"<policy-file-request/>\0") -> bytes:
    with connect(port) as client:
        client.sendall(request)
        reply = b""
        while data := client.recv(4096):
            reply += data
        return reply


def status_of(server: Flashpol) -> Any:
    url = server.url.removeprefix("http://").removesuffix("/metrics")
    done = subprocess.run(
        command("status", "--json", "--admin", url), capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("workers", [1, 3])
def test_link_local_listener_and_admin_endpoint_serve_also_after_a_crash_and_a_reload(host: int, workers: int) -> None:
    def test() -> None:
        with Flashpol(*POLICY, listen=(f"[{PLACE}]:0",), admin=f"[{PLACE}]:0", workers=workers) as server:
            [address] = server.addresses
            assert address.startswith(f"[{PLACE}]:")
            port = int(address.rpartition(":")[2])
            assert ask(port)[-1:] == b"\0"
            status = status_of(server)
            assert status["listeners"][0]["address"] == address
            for worker in status["workers"]:
                os.kill(worker["pid"], 9)
            eventually(lambda: all(each["up"] for each in status_of(server)["workers"]), "the successors")
            assert ask(port)[-1:] == b"\0"
            server.process.send_signal(1)
            eventually(lambda: " reloaded: " in server.log, "the reload")
            assert ask(port)[-1:] == b"\0"
            assert server.stop() == 0
            assert "spoilt" not in server.log

    inside(host, test)


def test_link_local_upstream_gets_the_session(host: int, tmp_path: Path) -> None:
    config = tmp_path / "flashpol.toml"

    def test() -> None:
        found = socket.getaddrinfo(PLACE, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(found[0], found[1]) as application:
            application.settimeout(10)
            application.bind(found[4])
            application.listen()
            config.write_text(
                '[policies.p]\ngrants = [{domain = "*", ports = "1935"}]\n'
                f'[[listeners]]\npolicy = "p"\naddress = "[{PLACE}]:0"\nupstream_proxy = "v1"\n'
                f'upstream = "[{PLACE}]:{application.getsockname()[1]}"\n'
            )
            with Flashpol("-c", config, listen=()) as server:
                port = int(server.addresses[0].rpartition(":")[2])
                assert ask(port)[-1:] == b"\0"
                with connect(port) as client:
                    client.sendall(b"hello")
                    backend, _ = application.accept()
                    with backend:
                        backend.settimeout(10)
                        data = b""
                        while not data.endswith(b"hello"):
                            data += backend.recv(4096)
                        assert data.startswith(b"PROXY TCP6 fe80::84 fe80::84 ")
                        backend.sendall(b"world")
                    assert client.recv(4096) == b"world"
                assert server.stop() == 0

    inside(host, test)


@pytest.mark.parametrize(
    ("option", "text"), [("--listen", "[fe80::84%nowhere]:8430"), ("--admin", "[fe80::84%4000000]:0")]
)
def test_link_local_address_of_an_unknown_interface_is_one_line(host: int, option: str, text: str) -> None:
    listen = ("--listen", "127.0.0.1:0") if option == "--admin" else ()
    done = inside(host, lambda: run("serve", *POLICY, *listen, option, text))
    interface = text.partition("%")[2].partition("]")[0]
    assert one_line(done) == f"{text}: there is no network interface '{interface}' (`ip link` lists them)"


def test_link_local_address_of_another_interface_is_one_line(host: int) -> None:
    done = inside(host, lambda: run("serve", *POLICY, "--listen", "[fe80::84%lo]:8430"))
    assert one_line(done) == "[fe80::84%lo]:8430: not an address of this host (`ip address` lists them)"


def test_link_local_address_without_an_interface_is_one_line() -> None:
    message = one_line(run("serve", *POLICY, "--listen", "[fe80::84]:8430"))
    assert "is link-local, which is an address of one interface: write [fe80::84%eth0]:8430" in message
