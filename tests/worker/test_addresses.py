"""Each address of a host can have a policy of its own: the only virtual hosting that the protocol allows."""

import hashlib
import socket
from pathlib import Path

import pytest

from flashpol.policy import allow_policy, compile_reply, render
from testkit.clients import ask
from testkit.polling import DEADLINE
from testkit.processes import Flashpol

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "::1")


def shared_port() -> int:
    """A port that is free at all of the addresses."""
    for _ in range(20):
        sockets = []
        try:
            port = 0
            for host in HOSTS:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                sockets.append(socket.create_server((host, port), family=family))
                port = sockets[0].getsockname()[1]
        except OSError:
            continue
        else:
            return port
        finally:
            for sock in sockets:
                sock.close()
    pytest.skip("this host lacks one of the loopback addresses")


def policy(domain: str) -> bytes:
    return render(allow_policy([f"{domain}:80"]))


CONFIG = """
[policies.file]
file = "file.xml"
[policies.folder]
folder = "folder"
[policies.grants]
grants = [{{domain = "grants.example", ports = "80"}}]
[[listeners]]
name = "first"
address = "127.0.0.2:{port}"
policy = "file"
[[listeners]]
name = "second"
address = "127.0.0.3:{port}"
policy = "folder"
[[listeners]]
name = "third"
address = "127.0.0.4:{port}"
policy = "grants"
[[listeners]]
address = "[::1]:{port}"
policy = "file"
"""


def test_listeners_on_one_port_serve_the_policy_of_their_address(tmp_path: Path) -> None:
    port = shared_port()
    (tmp_path / "file.xml").write_bytes(policy("file.example"))
    (tmp_path / "folder").mkdir()
    for number in (1, 2):
        (tmp_path / "folder" / f"{number}.xml").write_bytes(policy(f"folder{number}.example"))
    file = tmp_path / "flashpol.toml"
    file.write_text(CONFIG.format(port=port))
    domains = {
        "first": ["file.example"],
        "second": ["folder1.example", "folder2.example"],
        "third": ["grants.example"],
        f"[::1]:{port}": ["file.example"],
    }
    replies = [
        compile_reply(render(allow_policy([f"{domain}:80" for domain in granted]))) for granted in domains.values()
    ]
    with Flashpol("-c", file, listen=(), workers=2) as server:
        assert server.places == [(host, port) for host in HOSTS]
        for _ in range(4):  # so that both workers get some
            assert [ask((host, port)) for host in HOSTS] == replies
        for name, reply in zip(domains, replies, strict=True):
            server.counts(4, "replies_total", listener=name)
            digest = hashlib.sha256(reply.removesuffix(b"\0")).hexdigest()
            server.counts(1, "policy_info", listener=name, sha256=digest)
        with pytest.raises(ConnectionRefusedError):
            ask(("127.0.0.1", port))
        assert server.stop() == 0


TIMEOUTS = """
[server]
request_timeout = 60
[policies.p]
grants = [{domain = "a.example", ports = "80"}]
[[listeners]]
name = "hasty"
address = "127.0.0.2:0"
request_timeout = 0.2
[[listeners]]
name = "patient"
address = "127.0.0.3:0"
"""


def test_listeners_with_own_timeouts_apply_their_own(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    file.write_text(TIMEOUTS)
    with Flashpol("-c", file, listen=()) as server:
        hasty, patient = (socket.create_connection(place, timeout=DEADLINE) for place in server.places)
        with hasty, patient:
            assert hasty.recv(1) == b""
            patient.setblocking(False)
            with pytest.raises(BlockingIOError):
                patient.recv(1)
            server.counts(1, "timeouts_total", listener="hasty")
            server.counts(0, "timeouts_total", listener="patient")
            server.counts(1, "connections_open", listener="patient")
