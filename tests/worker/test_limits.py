"""Limits of a whole server: over its workers, after the death of one, and in its metrics."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.clients import REQUEST, ask, connect, rest
from testkit.polling import eventually
from testkit.processes import Flashpol

POLICY = '[policies.all]\ngrants = [{domain = "*", ports = "*"}]\n[[listeners]]\nname = "a"\naddress = "127.0.0.1:0"\n'


@contextlib.contextmanager
def serve(place: Path, settings: str, listener: str = "", workers: int = 2) -> Iterator[Flashpol]:
    path = place / "flashpol.toml"
    path.write_text(f"[server]\nrequest_timeout = 30\nshutdown_timeout = 0.1\n{settings}\n{POLICY}{listener}\n")
    with Flashpol("-c", path, listen=(), workers=workers) as server:
        yield server


def source(server: Flashpol, ip: str) -> socket.socket:
    client = socket.socket()
    client.settimeout(20)
    client.bind((ip, 0))
    client.connect(server.place)
    return client


def refused(client: socket.socket) -> bool:
    """Whether it was closed at once; False: it is kept open."""
    client.settimeout(0.2)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def held(server: Flashpol, ip: str, count: int) -> list[socket.socket]:
    """Clients that send nothing, when each has been accepted or refused."""
    before = server.metrics().total("connections_accepted_total")
    clients = [source(server, ip) for _ in range(count)]
    eventually(lambda: server.metrics().total("connections_accepted_total") == before + count, "all accepted")
    return clients


def close(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def test_max_address_connections_holds_over_two_workers(tmp_path: Path) -> None:
    """No client is refused below the limit. Above it, a worker admits it up to its half of the limit."""
    with serve(tmp_path, "max_address_connections = 20") as server:
        clients = held(server, "127.0.0.2", 60)
        open_ = server.metrics().total("connections_open")
        assert 20 <= open_ < 40
        server.counts(60 - open_, "refused_total", reason="max_address_connections")
        assert rest(connect(server.place, REQUEST))  # 127.0.0.1
        close(clients)
        eventually(lambda: server.metrics().total("connections_open") == 0, "all closed")
        again = held(server, "127.0.0.2", 15)
        server.counts(15, "connections_open")
        close(again)
        assert server.stop() == 0


def test_max_connections_holds_over_two_workers(tmp_path: Path) -> None:
    with serve(tmp_path, "max_connections = 50\nmax_address_connections = 0") as server:
        clients = held(server, "127.0.0.2", 200)
        metrics = server.metrics()
        assert 50 <= metrics.total("connections_open") <= 50 + 32
        assert metrics.total("refused_total", reason="max_connections") == 200 - metrics.total("connections_open")
        close(clients)


def test_connections_of_a_killed_worker_no_longer_count(tmp_path: Path) -> None:
    with serve(tmp_path, "max_connections = 10\nmax_address_connections = 10", workers=1) as server:
        first = held(server, "127.0.0.2", 20)
        server.counts(10, "connections_open")
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.workers not in ([], [worker]) and server.up, "the next worker")
        second = held(server, "127.0.0.2", 20)
        metrics = server.metrics()
        server.counts(10, "connections_open")
        server.counts(10, "refused_total", reason="crashed")
        assert (
            sum(metrics.total("refused_total", reason=each) for each in ("max_connections", "max_address_connections"))
            == 20
        )
        close(first + second)


@pytest.mark.parametrize(
    ("listener", "reason"),
    [
        ('deny_networks = ["127.0.0.0/29"]', "network"),
        ('allow_networks = ["192.0.2.0/24"]', "network"),
        ('proxy_protocol = true\nproxy_networks = ["192.0.2.0/24"]', "proxy_untrusted"),
    ],
)
def test_client_outside_the_networks_is_refused_with_its_reason(tmp_path: Path, listener: str, reason: str) -> None:
    with serve(tmp_path, "", listener) as server:
        with source(server, "127.0.0.2") as client:
            assert refused(client)
        server.counts(1, "refused_total", reason=reason)
        assert "127.0.0.2" not in server.log


def test_networks_that_overlap_the_smaller_decides(tmp_path: Path) -> None:
    with serve(tmp_path, "", 'allow_networks = ["127.0.0.1"]\ndeny_networks = ["127.0.0.0/8"]') as server:
        assert ask(server.place).endswith(b"\0")
        with source(server, "127.0.0.2") as client:
            assert refused(client)
