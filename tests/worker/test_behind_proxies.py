"""Behind a real HAProxy and a real nginx, in network namespaces: limits, lists and the log mean the client."""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from flashpol.policy import allow_policy, compile_reply, render
from testkit.clients import REQUEST, connect, rest
from testkit.namespaces import CLIENTS, CLIENTS6, HOST, HOST6, Network, inside, network
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol

pytestmark = pytest.mark.slow
PORT, DIRECT = 8430, 8431  # of flashpol: behind proxies, and without
MODULES = [Path(folder, "ngx_stream_module.so") for folder in ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")]
WAYS = {"send-proxy": 8001, "send-proxy-v2": 8002, "nginx": 8003}  # how clients arrive -> the port of that proxy
REPLY = compile_reply(render(allow_policy(["*:*"])))

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
""" + "".join(
    f"""
listen {way}
    bind {HOST}:{port}
    bind [{HOST6}]:{port}
    server flashpol 127.0.0.1:{PORT} {way}
"""
    for way, port in WAYS.items()
    if way != "nginx"
)

CONFIGURATION = f"""
[server]
workers = 2
admin = "127.0.0.1:9843"
access_log = 1
max_address_connections = 3
request_timeout = 30
[policies.all]
grants = [{{domain = "*", ports = "*"}}]
[[listeners]]
name = "behind"
address = "127.0.0.1:{PORT}"
proxy_protocol = true
proxy_networks = ["127.0.0.0/8"]
deny_networks = ["{CLIENTS[1]}", "{CLIENTS6[1]}"]
[[listeners]]
name = "only proxies"
address = "{HOST}:{DIRECT}"
proxy_protocol = true
proxy_networks = ["127.0.0.0/8"]
"""


def nginx_configuration(place: Path) -> str:
    load = next((f"load_module {module};\n" for module in MODULES if module.exists()), "")
    return (
        f"{load}daemon off; worker_processes 1; pid {place}/pid; error_log {place}/log warn;\n"
        "events { worker_connections 64; }\n"
        f"stream {{ server {{ listen {HOST}:{WAYS['nginx']}; listen [{HOST6}]:{WAYS['nginx']};\n"
        f"proxy_protocol on; proxy_pass 127.0.0.1:{PORT}; }} }}\n"
    )


@contextmanager
def proxy(*command: str | Path) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DEADLINE)


class World:
    """The server and its proxies, up; `ask` and `hold` act as clients."""

    def __init__(self, server: Flashpol, net: Network) -> None:
        self.server, self.net = server, net

    def client(self, source: str, port: int, act: Callable[..., bytes], data: bytes = REQUEST) -> bytes:
        def there() -> bytes:
            connection = connect((HOST6 if ":" in source else HOST, port), source=source)
            connection.sendall(data)
            return act(connection)

        return inside(self.net.clients, there)

    def ask(self, source: str, port: int, data: bytes = REQUEST) -> bytes:
        """The reply; empty if the connection was refused, with RST or without."""

        def read(connection) -> bytes:  # type: ignore[no-untyped-def]
            try:
                return rest(connection)
            except ConnectionResetError:
                return b""

        return self.client(source, port, read, data)

    def refused(self, reason: str) -> float:
        metrics = inside(self.net.host, self.server.metrics)
        return metrics.total("refused_total", reason=reason)

    def settled(self) -> dict[str, float]:
        """Counters once nothing is open: each connection ended in exactly one way."""

        def look() -> dict[str, float] | None:
            metrics = inside(self.net.host, self.server.metrics)
            names = ("connections_accepted", "replies", "refused", "timeouts", "resets")
            found = {name: metrics.total(f"{name}_total") for name in names}
            return None if metrics.total("connections_open") else found

        found = eventually(look, "the end of all connections")
        assert found.pop("connections_accepted") == sum(found.values())
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if not shutil.which("haproxy") or not (nginx := shutil.which("nginx")):
        pytest.skip("HAProxy or nginx is not installed")
    place = tmp_path_factory.mktemp("proxies")
    (place / "haproxy.cfg").write_text(HAPROXY)
    (place / "nginx.conf").write_text(nginx_configuration(place))
    (place / "flashpol.toml").write_text(CONFIGURATION)
    with network() as net, ExitStack() as stack:

        def start() -> Flashpol:
            server = Flashpol("-c", place / "flashpol.toml", listen=(), workers=None, admin=None)
            stack.enter_context(server)
            stack.enter_context(proxy("haproxy", "-db", "-f", place / "haproxy.cfg"))
            stack.enter_context(proxy(nginx, "-p", place, "-e", place / "log", "-c", place / "nginx.conf"))
            return server

        made = World(inside(net.host, start), net)
        for port in WAYS.values():
            eventually(lambda port=port: listens(made, port), f"a proxy on port {port}")  # type: ignore[misc]
        yield made


def listens(world: World, port: int) -> bool:
    try:
        return world.ask(CLIENTS[2], port) == REPLY
    except OSError:
        return False


@pytest.mark.parametrize("way", WAYS)
def test_access_log_and_network_lists_behind_a_proxy_mean_the_client(world: World, way: str) -> None:
    for source in (CLIENTS[0], CLIENTS6[0]):
        assert world.ask(source, WAYS[way]) == REPLY
        eventually(lambda source=source: f"{source}" in world.server.log, f"{source} in the log")  # type: ignore[misc]
    before = world.refused("network")
    for source in (CLIENTS[1], CLIENTS6[1]):
        assert world.ask(source, WAYS[way]) == b""
    assert world.refused("network") == before + 2
    world.settled()


@pytest.mark.parametrize("way", WAYS)
def test_max_address_connections_behind_a_proxy_counts_by_client(world: World, way: str) -> None:
    """All connections come from the proxy's address; three of them belong to one client, which is at its limit."""
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(inside(world.net.clients, lambda: connect((HOST, WAYS[way]), source=CLIENTS[0])))
        eventually(
            lambda: inside(world.net.host, world.server.metrics).total("connections_open") == 3, "three connections"
        )
        before = world.refused("max_address_connections")
        # A connection counts for its client when its header has arrived, a moment after it was accepted.
        eventually(
            lambda: (
                world.ask(CLIENTS[0], WAYS[way]) == REPLY and world.refused("max_address_connections") == before + 1
            ),
            "one of the silent three gives way to the fourth",
        )
        eventually(
            lambda: re.search(rf"max_address_connections \(3\); most from {re.escape(CLIENTS[0])} ", world.server.log),
            "the client's address in the log",
        )
        assert world.ask(CLIENTS[2], WAYS[way]) == REPLY
    world.settled()


def test_header_from_outside_proxy_networks_is_refused(world: World) -> None:
    before = world.refused("proxy_untrusted")
    forged = f"PROXY TCP4 {CLIENTS[2]} {HOST} 1 2\r\n".encode() + REQUEST
    assert world.ask(CLIENTS[0], DIRECT, forged) == b""
    assert world.refused("proxy_untrusted") == before + 1
    assert world.ask(CLIENTS[2], WAYS["nginx"]) == REPLY
    world.settled()
