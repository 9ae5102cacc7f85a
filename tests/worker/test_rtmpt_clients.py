"""Whose a tunnel session is, on real servers: limits, lists and log mean the client at /open. Why none is opened."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flashpol._fastpath import REASONS
from testkit.application import Application, application, receive
from testkit.polling import eventually
from testkit.processes import Flashpol, free_port
from testkit.random_applications import full_queue
from testkit.rtmpt_client import RtmptClient
from testkit.tunnel_site import TunnelSite, lane_at, logged, warnings

pytestmark = pytest.mark.slow

PROXY, OTHER = "127.0.0.1", "127.0.0.9"  # an address in forwarded_networks, and one that is not
PLAYER, NEIGHBOUR, DENIED = "192.0.2.7", "192.0.2.8", "198.51.100.7"
QUICK = {"rtmpt_hold": 0.2, "rtmpt_session_timeout": 5.0, "shutdown_timeout": 1.0}


@pytest.fixture(scope="module")
def behind() -> Iterator[Application]:
    with application() as behind:
        yield behind


@pytest.fixture(scope="module")
def server(behind: Application, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    upstream, denied = str(behind.remote), ["198.51.100.0/24", "127.0.0.66/32"]
    to_v1, to_v2 = (
        {"upstream": upstream, "upstream_proxy": version, "deny_networks": denied} for version in ("v1", "v2")
    )
    with ExitStack() as stack:
        listeners: dict[str, dict[str, object]] = {
            "direct": {**to_v1},
            "forwarded": {**to_v1, "forwarded_networks": [PROXY]},
            "proxied": {**to_v2, "proxy_protocol": True, "proxy_networks": [PROXY]},
            "down": {"upstream": f"127.0.0.1:{free_port()}"},
            "slow": {"upstream": stack.enter_context(full_queue()), "connect_timeout": 0.3},
            "busy": {"upstream": upstream, "connect_rate": 0.1},
        }
        site = TunnelSite(tmp_path_factory.mktemp("clients"), listeners, max_address_sessions=2, **QUICK)
        # Limits of an address are exact in one worker; of two, each admits its part without asking the other.
        yield stack.enter_context(site.serve(workers=1))


def place(server: Flashpol, name: str) -> tuple[str, int]:
    return server.places[["direct", "forwarded", "proxied", "down", "slow", "busy"].index(name)]


def forwarded(server: Flashpol, *entries: str, source: str = PROXY) -> RtmptClient:
    headers = [("X-Forwarded-For", entry) for entry in entries]
    return RtmptClient(place(server, "forwarded"), headers=headers, source=source)


def header_of(inner: socket.socket) -> tuple[str, int]:
    """The client's address in the PROXY header that the upstream gets."""
    start = receive(inner, 12)
    if start == b"\r\n\r\n\0\r\nQUIT\n":
        command, size = receive(inner, 2), int.from_bytes(receive(inner, 2))
        body = receive(inner, size)
        assert command == b"\x21\x11", "PROXY, TCP over IPv4"
        return socket.inet_ntoa(body[:4]), int.from_bytes(body[8:10])
    while not start.endswith(b"\r\n"):
        start += receive(inner, 1)
    proxy, family, source, _, port, _ = start.decode().split()
    assert (proxy, family) == ("PROXY", "TCP4")
    return source, int(port)


def sessions(server: Flashpol, listener: str) -> list[dict[str, Any]]:
    """The lines of the access log."""
    lines = [line for line in logged(server) if line["event"] == "access" and line["outcome"] == "relayed"]
    assert {line["protocol"] for line in lines} <= {"rtmpt"}
    return [line for line in lines if line["listener"] == listener]


def works(client: RtmptClient, inner: socket.socket) -> None:
    """A session whose upstream has sent nothing would give way to another one of its client."""
    assert client.send(b"here").status == 200
    assert receive(inner, 4) == b"here"
    inner.sendall(b"too")
    assert client.receive_exactly(3) == b"too"


# ---------------------------------------------------------------------------------------------------------- the client


def test_client_is_the_address_of_the_open_request(server: Flashpol, behind: Application) -> None:
    """Also when later requests come from another one."""
    before = len(sessions(server, "direct"))
    with RtmptClient(place(server, "direct"), source="127.0.0.7") as client:
        client.open()
        port = client.lanes[0].sock.getsockname()[1]
        with behind.accept() as inner:
            assert header_of(inner) == ("127.0.0.7", port)
            client.drop()
            client.source = "127.0.0.8"
            works(client, inner)
            client.close()
    eventually(lambda: len(sessions(server, "direct")) == before + 1, "a line of the access log")
    line = sessions(server, "direct")[-1]
    assert (line["ip"], line["port"], line["tls"]) == ("127.0.0.7", port, False)


def test_forwarded_client_is_the_one_of_header_log_and_limit(server: Flashpol, behind: Application) -> None:
    before = len(sessions(server, "forwarded"))
    with ExitStack() as stack:
        clients = [stack.enter_context(forwarded(server, f"{DENIED}, {PLAYER}")) for _ in range(3)]
        for client in clients[:2]:
            assert client.open().status == 200
            inner = stack.enter_context(behind.accept())
            assert header_of(inner)[0] == PLAYER
            works(client, inner)
        refused = clients[2].open()
        assert (refused.status, refused.body) == (503, b"")
        neighbour = stack.enter_context(forwarded(server, NEIGHBOUR))
        assert neighbour.open().status == 200, "the limit is of the address, not of the proxy"
        inner = stack.enter_context(behind.accept())
        assert header_of(inner)[0] == NEIGHBOUR
        works(neighbour, inner)
        for client in (*clients[:2], neighbour):
            client.close()
    eventually(lambda: len(sessions(server, "forwarded")) == before + 3, "lines of the access log")
    assert sorted(line["ip"] for line in sessions(server, "forwarded")[before:]) == [PLAYER, PLAYER, NEIGHBOUR]
    with forwarded(server, PLAYER) as client:  # the places are free again
        assert client.open().status == 200
        behind.accept().close()


def test_two_clients_on_one_connection_of_a_proxy_are_two_clients(server: Flashpol, behind: Application) -> None:
    with forwarded(server) as first, forwarded(server) as second, ExitStack() as stack:
        for client, address in ((first, PLAYER), (second, NEIGHBOUR)):
            client.fields.insert(0, ("X-Forwarded-For", address))
            second.lanes = first.lanes
            assert client.open().status == 200
            inner = stack.enter_context(behind.accept())
            assert header_of(inner)[0] == address
            works(client, inner)
        assert first.id != second.id
        assert (first.close().status, second.close().status) == (200, 200)


@pytest.mark.parametrize(
    ("entries", "source", "client"),
    [
        ([PLAYER], OTHER, OTHER),  # it is no proxy of ours
        ([f"{NEIGHBOUR}, {PLAYER}, {PROXY}"], PROXY, PLAYER),
        ([NEIGHBOUR, PLAYER], PROXY, PLAYER),  # two fields are one list
        (["unknown"], PROXY, PROXY),
        ([], PROXY, PROXY),
    ],
)
def test_x_forwarded_for_is_believed_of_forwarded_networks_only(
    server: Flashpol, behind: Application, entries: list[str], source: str, client: str
) -> None:
    with forwarded(server, *entries, source=source) as one:
        assert one.open().status == 200
        with behind.accept() as inner:
            assert header_of(inner)[0] == client
            one.close()


def test_denied_client_behind_a_proxy_opens_nothing(server: Flashpol, behind: Application) -> None:
    with forwarded(server, DENIED) as client:
        reply = client.open()
        assert (reply.status, reply.body) == (403, b"")
    with forwarded(server, DENIED, source=OTHER) as client:  # what it says does not count
        assert client.open().status == 200
        behind.accept().close()
    with RtmptClient(place(server, "direct"), source="127.0.0.66") as client, pytest.raises(ConnectionError):
        client.open()
    assert behind.has_no_connection()


@pytest.mark.parametrize("header", [1, 2])
def test_proxy_header_before_http_names_the_client(server: Flashpol, behind: Application, header: int) -> None:
    def connected(address: str) -> RtmptClient:
        client = RtmptClient(place(server, "proxied"))
        ports = (4711).to_bytes(2) + (80).to_bytes(2)
        data = f"PROXY TCP4 {address} {PROXY} 4711 80\r\n".encode()
        if header == 2:
            addresses = socket.inet_aton(address) + socket.inet_aton(PROXY)
            data = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + addresses + ports
        client.connect().sock.sendall(data)
        return client

    before = len(sessions(server, "proxied"))
    with connected(PLAYER) as client:
        assert client.open().status == 200
        with behind.accept() as inner:
            assert header_of(inner) == (PLAYER, 4711)
            works(client, inner)
            client.close()
    eventually(lambda: len(sessions(server, "proxied")) == before + 1, "a line of the access log")
    line = sessions(server, "proxied")[-1]
    assert (line["ip"], line["port"]) == (PLAYER, 4711)
    with connected(DENIED) as client, pytest.raises(ConnectionError):
        client.open()


# -------------------------------------------------------------------------------------------------------- not opened


@pytest.mark.parametrize(("name", "status"), [("down", 502), ("slow", 504), ("busy", 503)])
def test_session_without_an_upstream_gets_a_status_and_no_body(
    server: Flashpol, behind: Application, name: str, status: int
) -> None:
    with RtmptClient(place(server, name)) as client:
        for _ in range(20):  # connect_rate is a worker's, and lets one through
            reply = client.open()
            if reply.status != 200:
                break
            behind.accept().close()
            client.drop()
        assert (reply.status, reply.body) == (status, b"")
        assert not reply.closes, "ffmpeg sees the status only then"
        assert client.exchange("fcs").status == 404, "the connection goes on"


def test_max_sessions_is_the_limit_of_a_worker_and_another_has_room(behind: Application, tmp_path: Path) -> None:
    site = TunnelSite(tmp_path, {"film": {"upstream": str(behind.remote)}}, max_sessions=2, **QUICK)
    with site.serve() as server, ExitStack() as stack:
        full, other = server.workers
        clients = []
        for _ in range(2):
            client = stack.enter_context(RtmptClient(server.place))
            via = lane_at(client, full, other_than=[other])
            assert client.open(via).status == 200
            inner = stack.enter_context(behind.accept())
            client.send(b"hello", via=via)
            inner.sendall(b"hello")  # a session in both directions is not evicted
            assert client.receive_exactly(5, via=via) == b"hello"
            clients.append(client)
        third = stack.enter_context(RtmptClient(server.place))
        via = lane_at(third, full, other_than=[other])
        reply = third.open(via)
        assert (reply.status, reply.body) == (503, b"")
        assert third.open(lane_at(third, other, other_than=[full])).status == 200
        behind.accept().close()
        assert clients[0].close().status == 200
        eventually(lambda: third.open(via).status == 200, "its place")
        behind.accept().close()
        assert warnings(server) == {"rtmpt-refused"}


# ---------------------------------------------------------------------------------------------------------- the metrics


def test_metrics_balance_after_all_of_this(server: Flashpol) -> None:
    """The last test of this server."""

    def balanced() -> bool:
        metrics = server.metrics()
        if metrics.total("connections_open"):
            return False
        ends = sum(metrics.total(name) for name in ("replies_total", "served_total", "timeouts_total", "resets_total"))
        ends += sum(metrics.total("refused_total", reason=reason) for reason in REASONS)
        return metrics.total("connections_accepted_total") == ends + metrics.total("relayed_total")

    eventually(balanced, "one end of each connection", 40)
    metrics = server.metrics()
    assert metrics.total("relayed_total", protocol="rtmpt") == metrics.total("relayed_total")
    assert metrics.total("rtmpt_ends_total") == metrics.total("rtmpt_sessions_total") == metrics.total("relayed_total")
    assert [metrics.total(name) for name in ("sessions", "rtmpt_sessions_open", "rtmpt_polls_held")] == [0, 0, 0]
