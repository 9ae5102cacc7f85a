"""`upstream_source = "client"`: the application sees its clients' own addresses, on this host and on another one.

The routes are made by the commands that the guide prints.
"""

import dataclasses
import pwd
import shutil
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from queue import SimpleQueue

import pytest

from flashpol._pump import Destination
from flashpol.config import UpstreamAddress
from flashpol.process.local_ports import LocalPorts
from flashpol.relay.client_address import why_unusable
from testkit.application import receive
from testkit.namespaces import inside
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, status
from testkit.pump_loop import PumpLoop
from testkit.routed_network import (
    APPLICATION,
    CLIENTS,
    HOST,
    INNER,
    LOOPBACK,
    PORT,
    RoutedNetwork,
    guide_commands,
    routed_network,
    set_sysctl,
    shell,
)
from testkit.serving import TIMEOUTS
from testkit.shared_ports import SharedPorts
from testkit.tls import ANY
from testkit.tls_serving import issue

NET_RAW = 1 << 13  # capabilities(7)
BOTH = (4, 6)
PUBLIC, BEHIND_PROXY = 7000, 7002

needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="no nft: apt-get install nftables")


@pytest.fixture
def net() -> Iterator[RoutedNetwork]:
    with routed_network() as made:
        yield made


class Application:
    """It listens on addresses of one namespace, and sends back what it receives. `peers`: the address of each client;
    `ends`: how each of their connections ended, "fin" or "rst"."""

    def __init__(self, namespace: int, hosts: list[str]) -> None:
        self.peers: SimpleQueue[str] = SimpleQueue()
        self.ends: SimpleQueue[str] = SimpleQueue()
        self._listening = [inside(namespace, lambda host=host: self._listen(host)) for host in hosts]  # type: ignore[misc]
        for sock in self._listening:
            threading.Thread(target=self._accept, args=(sock,), daemon=True).start()

    @staticmethod
    def _listen(host: str) -> socket.socket:
        return socket.create_server((host, PORT), family=socket.AF_INET6 if ":" in host else socket.AF_INET)

    def _accept(self, sock: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, peer = sock.accept()
                self.peers.put(peer[0])
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
                self.ends.put("fin")
            except ConnectionResetError:
                self.ends.put("rst")

    def close(self) -> None:
        for sock in self._listening:
            sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def application(namespace: int, hosts: dict[int, str]) -> Iterator[Application]:
    made = Application(namespace, [*hosts.values()])
    try:
        yield made
    finally:
        made.close()


@contextmanager
def serving(net: RoutedNetwork, folder: Path, upstreams: list[str]) -> Iterator[Flashpol]:
    """A server on the host, whose workers run as another user."""
    pair = issue("games.test")
    (folder / "chain.pem").write_bytes(pair.chain)
    (folder / "key.pem").write_bytes(pair.key)
    (folder / "key.pem").chmod(0o600)
    shared = f"upstream = {upstreams!r}\nupstream_source = 'client'\n"
    (folder / "flashpol.toml").write_text(
        "[server]\nuser = 'nobody'\n[policies.games]\ngrants = [{domain = '*', ports = '7000'}]\n"
        "[certificates.games]\nchain = 'chain.pem'\nkey = 'key.pem'\n"
        f"[[listeners]]\nname = 'public'\naddress = '[::]:{PUBLIC}'\ntls = ['games']\n{shared}"
        f"[[listeners]]\nname = 'behind'\naddress = '[::]:{BEHIND_PROXY}'\n{shared}"
        "proxy_protocol = true\nproxy_networks = ['198.51.100.0/24', '2001:db8::/64']\n"
    )
    server = Flashpol("-c", folder / "flashpol.toml", listen=())
    inside(net.host, server.__enter__)
    try:
        yield server
        assert server.stop() == 0
    finally:
        server.__exit__()


def connect(net: RoutedNetwork, source: str, port: int = PUBLIC) -> socket.socket:
    host = HOST[6 if ":" in source else 4]

    def work() -> socket.socket:
        return socket.create_connection((host, port), DEADLINE, (source, 0))

    return inside(net.clients, work)


def whole_session(client: socket.socket, first: bytes = b"") -> None:
    """1 MB there and back, then FIN from each side."""
    data = bytes(range(256)) * 4096
    writer = threading.Thread(target=lambda: (client.sendall(first + data), client.shutdown(socket.SHUT_WR)))
    writer.start()
    assert receive(client, len(data)) == data
    assert client.recv(1) == b""
    writer.join()


def tls_session(sock: socket.socket) -> None:
    with ANY.wrap_socket(sock, server_hostname="games.test") as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def check_sessions(net: RoutedNetwork, app: Application) -> None:
    """Of two clients in each IP version, in plain text and with TLS, with each kind of end."""
    for version in BOTH:
        for source in CLIENTS[version]:
            with connect(net, source) as client:
                whole_session(client)
            assert (app.peers.get(timeout=DEADLINE), app.ends.get(timeout=DEADLINE)) == (source, "fin")
        with connect(net, source) as client:
            tls_session(client)
        assert app.peers.get(timeout=DEADLINE) == source
        app.ends.get(timeout=DEADLINE)
        client = connect(net, source)
        client.sendall(b"x")
        assert receive(client, 1) == b"x"
        reset(client)
        assert (app.peers.get(timeout=DEADLINE), app.ends.get(timeout=DEADLINE)) == (source, "rst")


def capabilities(server: Flashpol) -> list[int]:
    """The effective ones of the children, of which the workers come first."""
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    found = [status(child.pid) for child in server.children]
    assert {word for each in found for word in each["Uid"].split()} == {nobody}
    assert all(each["CapPrm"] == each["CapEff"] and int(each["CapInh"], 16) == 0 for each in found)
    return sorted((int(each["CapEff"], 16) for each in found), reverse=True)


def urls(hosts: dict[int, str]) -> list[str]:
    return [f"{hosts[4]}:{PORT}", f"[{hosts[6]}]:{PORT}"]


@pytest.mark.slow
def test_application_on_this_host_sees_its_clients(net: RoutedNetwork, tmp_path: Path) -> None:
    shell(net.host, guide_commands()[0])
    with application(net.host, LOOPBACK) as app, serving(net, tmp_path, urls(LOOPBACK)) as server:
        check_sessions(net, app)
        assert capabilities(server) == [NET_RAW, 0], "the worker alone keeps one"
        assert server.complaints == []
        with connect(net, CLIENTS[4][0], BEHIND_PROXY) as client:
            whole_session(client, b"PROXY TCP4 203.0.113.5 198.51.100.1 4000 843\r\n")
        assert app.peers.get(timeout=DEADLINE) == "203.0.113.5"
        with connect(net, CLIENTS[4][0], BEHIND_PROXY) as client:
            whole_session(client, b"PROXY TCP6 2001:db8:5::5 2001:db8::1 4000 843\r\n")
        assert app.peers.get(timeout=DEADLINE) == "2001:db8:5::5"


@pytest.mark.slow
def test_application_on_another_address_of_this_host_sees_its_clients(net: RoutedNetwork, tmp_path: Path) -> None:
    shell(net.host, guide_commands()[1])
    with application(net.host, INNER) as app, serving(net, tmp_path, urls(INNER)):
        check_sessions(net, app)


@pytest.mark.slow
@pytest.mark.parametrize("block", [3, pytest.param(4, marks=needs_nft)], ids=["rules", "marks"])
def test_application_on_another_host_sees_its_clients(net: RoutedNetwork, tmp_path: Path, block: int) -> None:
    commands = guide_commands()
    assert len(commands) == 5
    shell(net.application, commands[2])
    shell(net.host, commands[block])
    with application(net.application, APPLICATION) as app, serving(net, tmp_path, urls(APPLICATION)) as server:
        check_sessions(net, app)
        assert server.complaints == []
        with connect(net, CLIENTS[4][0], BEHIND_PROXY) as client:
            whole_session(client, b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 843\r\n")
        assert app.peers.get(timeout=DEADLINE) == INNER[4], "loopback addresses stay on this host"
        [line] = server.complaints
        assert line.endswith(
            "a session of 127.0.0.1 connects to backend 10.0.0.9:7001 from an address of this host: the client's "
            "address is loopback, the backend's is not"
        )


@pytest.mark.slow
def test_application_host_whose_default_route_leads_here_needs_no_rules(net: RoutedNetwork, tmp_path: Path) -> None:
    shell(net.application, f"ip route replace default via {INNER[4]}\nip -6 route replace default via {INNER[6]}\n")
    shell(net.host, guide_commands()[3])
    with application(net.application, APPLICATION) as app, serving(net, tmp_path, urls(APPLICATION)):
        check_sessions(net, app)


@pytest.mark.slow
def test_session_to_an_address_of_the_other_version_comes_from_this_host(net: RoutedNetwork, tmp_path: Path) -> None:
    """The log says so once, of two sessions."""
    shell(net.host, guide_commands()[0])
    only = {4: LOOPBACK[4]}
    with application(net.host, only) as app, serving(net, tmp_path, [f"{LOOPBACK[4]}:{PORT}"]) as server:
        for _ in range(2):
            with connect(net, CLIENTS[6][0]) as client:
                whole_session(client)
            assert app.peers.get(timeout=DEADLINE) == LOOPBACK[4]
        with connect(net, CLIENTS[4][0]) as client:
            whole_session(client)
        assert app.peers.get(timeout=DEADLINE) == CLIENTS[4][0]
        [line] = server.complaints
        assert line.endswith(
            "listener public: a session of 2001:db8::7 connects to backend 127.0.0.1:7001 from an address of this "
            "host: the client has an IPv6 address, the backend an IPv4 one"
        )


# ---------------------------------------------------------------------------------------------------------- local ports

PORTS = 40
QUICK = dataclasses.replace(TIMEOUTS, first_byte_timeout=0.1, connect_timeout=5.0)


@pytest.fixture
def serve(net: RoutedNetwork) -> Iterator[Callable[[], SharedPorts]]:
    """Start a server with few local ports, whose application is on another host."""
    shell(net.application, guide_commands()[2])
    shell(net.host, guide_commands()[3])
    set_sysctl(net.host, "ip_local_port_range", f"40000 {40000 + PORTS - 1}")
    with ExitStack() as stack:

        def start() -> SharedPorts:
            made: SharedPorts = inside(
                net.host,
                lambda: SharedPorts(
                    [UpstreamAddress(APPLICATION[4], PORT)],
                    QUICK,
                    host=HOST[4],
                    local_ports=LocalPorts.of_host(),
                    upstream_source="client",
                ),
            )
            stack.callback(made.close)
            stack.callback(made.settle)
            return made

        yield start


def test_client_takes_over_the_ports_of_its_own_sessions(net: RoutedNetwork, serve: Callable[[], SharedPorts]) -> None:
    """Each session leaves one in TIME-WAIT, and there are three times as many sessions as ports. None is counted."""
    with application(net.application, {4: APPLICATION[4]}):
        server = serve()
        for _ in range(3 * PORTS):
            with connect(net, CLIENTS[4][0], server.addresses[0][1]) as client:
                client.sendall(b"x")
                assert receive(client, 1) == b"x"
                client.shutdown(socket.SHUT_WR)
                assert client.recv(1) == b""
        assert server.sessions(0) == {"client": 3 * PORTS}
        assert (server.relayed[0]["ports"], server.relayed[0]["max_ports"]) == (0, 0)


def test_client_without_a_free_port_keeps_no_other_out(net: RoutedNetwork, serve: Callable[[], SharedPorts]) -> None:
    """Neither the other client, nor the backend is down."""
    with application(net.application, {4: APPLICATION[4]}), ExitStack() as stack:
        server = serve()
        greedy, good = CLIENTS[4]
        for _ in range(PORTS // 2):
            stack.enter_context(connect(net, greedy, server.addresses[0][1])).sendall(b"x")
        eventually(lambda: server.relayed[0]["open"] == PORTS // 2)
        for _ in range(5):
            with connect(net, greedy, server.addresses[0][1]) as refused:
                refused.sendall(b"x")
                with suppress(ConnectionResetError):
                    assert refused.recv(1) == b""
        assert server.sessions(0) == {"ports": 5}
        with connect(net, good, server.addresses[0][1]) as client:
            client.sendall(b"x")
            assert receive(client, 1) == b"x"


def test_address_that_the_kernel_refuses_is_no_failure_of_the_backend(net: RoutedNetwork) -> None:
    """Such as a loopback address towards another host."""

    def attempt() -> tuple[list[tuple[str, int]], int]:
        loop = PumpLoop()
        to = Destination((APPLICATION[4], PORT), loop.block)
        outer, inner = loop.client()
        with outer:
            loop.start(inner, to, client_address="127.0.0.1")
            loop.close()
        return loop.ended, to.failures

    assert inside(net.host, attempt) == ([("ports", 0)], 0)


# ------------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("source", "destination", "why"),
    [
        ("192.0.2.7", "10.0.0.9", None),
        ("192.0.2.7", "127.0.0.1", None),
        ("127.0.0.1", "127.0.0.2", None),
        ("169.254.1.1", "10.0.0.9", None),
        ("2001:db8::7", "::1", None),
        ("192.0.2.7", "fd00::9", "the client has an IPv4 address, the backend an IPv6 one"),
        ("2001:db8::7", "10.0.0.9", "the client has an IPv6 address, the backend an IPv4 one"),
        ("127.0.0.1", "10.0.0.9", "the client's address is loopback, the backend's is not"),
        ("::1", "fd00::9", "the client's address is loopback, the backend's is not"),
        ("fe80::1", "fd00::9", "the client's address is link-local"),
        ("0.0.0.0", "10.0.0.9", "the client's address is not one of a host"),
        ("0.1.2.3", "10.0.0.9", "the client's address is not one of a host"),
        ("255.255.255.255", "10.0.0.9", "the client's address is not one of a host"),
        ("224.0.0.1", "10.0.0.9", "the client's address is not one of a host"),
        ("::", "fd00::9", "the client's address is not one of a host"),
        ("ff02::1", "fd00::9", "the client's address is not one of a host"),
    ],
)
def test_address_that_cannot_be_a_source_is_known(source: str, destination: str, why: str | None) -> None:
    assert why_unusable(ip_address(source), ip_address(destination)) == why
