"""Local ports towards an upstream on another host: short sessions do not use them up, and one address cannot."""

import dataclasses
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from flashpol.config import UpstreamAddress
from flashpol.log.format import fields
from flashpol.process.local_ports import LocalPorts
from flashpol.relay import local_ports
from testkit.namespaces import CLIENTS, HOST, Network, add_host_address, inside, network
from testkit.polling import DEADLINE, eventually
from testkit.serving import TIMEOUTS
from testkit.shared_ports import SharedPorts

APPLICATION, GREEDY, GOOD = CLIENTS
SECOND = "10.84.3.2"
PORTS = 120
QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.1, connect_timeout=5.0)


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def set_sysctl(namespace: int, name: str, value: str) -> None:
    inside(namespace, lambda: Path("/proc/sys/net/ipv4", name).write_text(value))


@pytest.fixture
def application(net: Network) -> Iterator[UpstreamAddress]:
    """It replies to a byte with a byte, and closes when its client has."""
    listening = inside(net.clients, lambda: socket.create_server((APPLICATION, 0), backlog=1000))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=reply, args=(connection,), daemon=True).start()

    def reply(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(100):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield UpstreamAddress(*listening.getsockname())
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()


@pytest.fixture
def serve(net: Network, application: UpstreamAddress) -> Iterator[Callable[..., SharedPorts]]:
    """Start a server in the host's namespace, which has 120 local ports."""
    set_sysctl(net.host, "ip_local_port_range", f"40000 {40000 + PORTS - 1}")
    running: list[SharedPorts] = []

    def start(**options: object) -> SharedPorts:
        ports = inside(net.host, LocalPorts.of_host)
        assert ports.count == PORTS
        made = inside(
            net.host, lambda: SharedPorts([application], QUICK, host=HOST, local_ports=ports, **options)
        )  # fmt: skip
        running.append(made)
        return made

    yield start
    for server in running:
        server.settle()
        server.close()


def connect(server: SharedPorts, source: str) -> socket.socket:
    client = socket.socket()
    client.settimeout(DEADLINE)
    client.bind((source, 0))
    client.connect(server.addresses[0])
    return client


def short_session(server: SharedPorts, source: str) -> bool:
    """A session that the client closes first. False: it was refused."""
    with connect(server, source) as client, suppress(ConnectionResetError):
        client.sendall(b"x")
        if client.recv(1) == b"x":
            client.shutdown(socket.SHUT_WR)
            return client.recv(1) == b""
    return False


def count_sessions(net: Network, server: SharedPorts, source: str, count: int) -> int:
    """Make so many short sessions, one after the other. How many were served."""
    return inside(net.clients, lambda: sum(short_session(server, source) for _ in range(count)))


def test_short_sessions_take_over_the_ports_that_others_left(net: Network, serve: Callable[..., SharedPorts]) -> None:
    """Four times as many as there are ports, within the 60 s of TIME-WAIT."""
    server = serve()
    assert count_sessions(net, server, GREEDY, 4 * PORTS) == 4 * PORTS
    assert count_sessions(net, server, GOOD, 30) == 30
    # Three eighths of the ports are in TIME-WAIT, which is the number at which the next one is taken over.
    assert (server.relayed[0]["ports"], server.relayed[0]["max_ports"]) == (PORTS * 3 // 8, PORTS)
    assert server.sessions(0) == {"client": 4 * PORTS + 30}


def test_address_cannot_use_up_ports_that_cannot_be_taken_over(net: Network, serve: Callable[..., SharedPorts]) -> None:
    """Without TCP timestamps no connection can use a port in TIME-WAIT."""
    set_sysctl(net.host, "tcp_timestamps", "0")
    server = serve()
    served = count_sessions(net, server, GREEDY, 2 * PORTS)
    assert served == PORTS // 2 + 1
    assert server.sessions(0) == {"client": served, "ports": 2 * PORTS - served}
    assert server.refused(0) == {"upstream": 2 * PORTS - served}
    assert count_sessions(net, server, GOOD, 25) == 25


def test_second_source_address_has_as_many_ports(net: Network, serve: Callable[..., SharedPorts]) -> None:
    set_sysctl(net.host, "tcp_timestamps", "0")
    add_host_address(net, SECOND)
    server = serve(upstream_source=(ip_address(HOST), ip_address(SECOND)))
    assert count_sessions(net, server, GREEDY, 2 * PORTS + 10) == 2 * (PORTS // 2 + 1)
    assert server.relayed[0]["max_ports"] == 2 * PORTS
    assert count_sessions(net, server, GOOD, 25) == 25


def test_log_says_that_ports_are_low_and_that_there_are_none(
    net: Network, serve: Callable[..., SharedPorts], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each, although many sessions are refused: one line a minute would be the next."""
    log = logging.getLogger("test_relay_local_ports")
    monkeypatch.setattr(local_ports, "log", log)
    server = serve()

    def hold(stack: ExitStack, source: str, count: int) -> None:
        for _ in range(count):
            stack.enter_context(connect(server, source)).sendall(b"x")

    with ExitStack() as stack:
        inside(net.clients, lambda: hold(stack, GREEDY, 61))
        eventually(lambda: server.relayed[0]["open"] == 61)
        inside(net.clients, lambda: hold(stack, GOOD, 30))
        eventually(lambda: server.relayed[0]["open"] == 91)
        assert [fields(record)["event"] for record in caplog.records] == []
        inside(net.clients, lambda: hold(stack, GREEDY, 1))
        eventually(lambda: len(caplog.records) == 2)
        assert server.sessions(0) == {"ports": 1}
        backend = {"listener": "shared-0", "ports": 91, "max_ports": 120}
        low, none = [fields(record) for record in caplog.records]
        assert low | backend | {"event": "ports-low"} == low
        assert none | backend | {"event": "ports-exhausted"} == none
