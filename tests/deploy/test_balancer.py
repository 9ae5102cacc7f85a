"""Three hosts behind HAProxy and behind nginx, each in a network namespace, with the files of deploy/balancer.

The hosts run flashpol, and a stub beside it, which shows what is the balancer's part.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpol.config import Listener, settings_of
from testkit.balanced_hosts import (
    CLIENTS,
    HTTP,
    RAW,
    SHIPPED,
    BalancedHosts,
    Balancer,
    FlashpolHost,
    HaproxyBalancer,
    Host,
    NginxBalancer,
    StubHost,
    balanced_hosts,
)
from testkit.certificates import make_ca
from testkit.clients import REQUEST
from testkit.polling import DEADLINE, eventually
from testkit.processes import call
from testkit.programs import needs
from testkit.tunnel_talk import Talk, TunnelClient

pytestmark = pytest.mark.slow
HAS_RTMPT = "rtmpt" in settings_of(Listener)
KINDS: dict[str, type[Host]] = {"stub": StubHost, "flashpol": FlashpolHost}
BALANCERS: dict[str, type[HaproxyBalancer | NginxBalancer]] = {"haproxy": HaproxyBalancer, "nginx": NginxBalancer}
NEEDS = {"haproxy": needs("haproxy"), "nginx": needs("nginx", modules=("ngx_stream_module.so",))}
BALANCER = [pytest.param(name, marks=NEEDS[name]) for name in BALANCERS]


KIND = ["stub", pytest.param("flashpol", marks=pytest.mark.skipif(not HAS_RTMPT, reason="no rtmpt"))]


@pytest.fixture(params=BALANCER)
def balancer(request: pytest.FixtureRequest, tmp_path: Path) -> Balancer:
    return BALANCERS[request.param](tmp_path)


@pytest.fixture(params=KIND)
def hosts(request: pytest.FixtureRequest, balancer: Balancer, tmp_path: Path) -> Iterator[BalancedHosts]:
    """For tests that change what runs."""
    with balanced_hosts(balancer, KINDS[request.param], tmp_path) as hosts:
        yield hosts


@pytest.fixture(scope="module", params=BALANCER)
def balancer_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=KIND)
def shared(
    request: pytest.FixtureRequest, balancer_name: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BalancedHosts]:
    """For all tests that leave it as it is."""
    folder = tmp_path_factory.mktemp(balancer_name)
    with balanced_hosts(BALANCERS[balancer_name](folder), KINDS[request.param], folder) as hosts:
        yield hosts


def talks(hosts: BalancedHosts, letters: str = "ABC", *, keep_alive: bool = True) -> dict[str, Talk]:
    """A session on each of these hosts. Others that opens lead to are ended."""
    found: dict[str, Talk] = {}

    def open_one() -> bool:
        talk = Talk(hosts.connect, keep_alive=keep_alive)
        if talk.host in letters and talk.host not in found:
            found[talk.host] = talk
        else:
            assert talk.end()
        return len(found) == len(letters)

    eventually(open_one, f"a session on each of {letters}")
    return found


def assert_go_on(*sessions: Talk) -> None:
    """Each of them has five more rounds."""
    wanted = [talk.rounds + 5 for talk in sessions]
    eventually(
        lambda: all(talk.ended or talk.rounds >= rounds for talk, rounds in zip(sessions, wanted, strict=True)),
        "rounds",
    )
    assert [talk.host for talk in sessions if talk.ended] == [], [talk.error for talk in sessions]


def new_hosts(hosts: BalancedHosts, count: int = 12) -> set[str]:
    """The hosts of some new sessions."""
    clients = [TunnelClient(hosts.connect) for _ in range(count)]
    found = {client.id[:1] for client in clients}
    assert all(client.send(b"hello") and client.fetch_all() and client.close() == 200 for client in clients)
    return found


def test_configuration_is_valid(balancer: Balancer) -> None:
    done = subprocess.run(balancer.check, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"WARNING|\[warn\]", done.stdout + done.stderr), done.stderr


def test_configuration_with_a_certificate_and_a_fourth_host_is_valid(balancer: Balancer, tmp_path: Path) -> None:
    pair = make_ca(tmp_path / "ca").issue("media.example.com")
    (tmp_path / "both.pem").write_text(pair.chain.read_text() + pair.key.read_text())
    balancer.use_certificate(tmp_path / "both.pem")
    balancer.write_fourth()
    done = subprocess.run(balancer.check, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not HAS_RTMPT, reason="no rtmpt")
def test_configuration_of_a_host_is_valid() -> None:
    done = call("config", "-q", "-c", SHIPPED / "flashpol.toml")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("keep_alive", [True, False], ids=["keep-alive", "a connection each"])
def test_sessions_stay_with_their_hosts(shared: BalancedHosts, keep_alive: bool) -> None:
    sessions = talks(shared, keep_alive=keep_alive)
    assert_go_on(*sessions.values())
    for talk in sessions.values():
        assert talk.end()
        if keep_alive:
            assert talk.client.connections == 1


def test_connection_that_carries_sessions_of_several_hosts_reaches_each_of_them(shared: BalancedHosts) -> None:
    """As a proxy in front of the balancer makes them."""
    sessions = [TunnelClient(shared.connect) for _ in range(6)]
    for each in sessions[1:]:
        each.share_connection(sessions[0])
    for number in range(4):
        assert all(each.send(f"{number} {each.id} ".encode()) for each in sessions)
    assert all(each.fetch_all() and each.close() == 200 for each in sessions)
    assert len({each.id[0] for each in sessions}) > 1


def test_host_knows_the_address_of_a_client(shared: BalancedHosts) -> None:
    client = TunnelClient(lambda: shared.connect(client=CLIENTS[1]))
    assert client.send(b"hello")
    assert client.fetch_all()
    assert client.close() == 200
    eventually(lambda: CLIENTS[1] in shared.hosts[client.id[0]].clients(), "the client's address")


def post(hosts: BalancedHosts, path: str) -> bytes:
    """The head of the reply, and what comes with it."""
    request = f"POST {path} HTTP/1.1\r\nHost: media.example.com\r\nContent-Length: 1\r\n\r\n\0"
    with hosts.connect(data=request.encode()) as client:
        return client.recv(4096)


@pytest.mark.parametrize(
    "path", ["/fcs/ident2", "/send/Z123456789abcdef/1", "/idle/A123456789abcdef/1", "/close/", "/send/"]
)
def test_path_that_no_host_knows_gets_404(shared: BalancedHosts, path: str) -> None:
    assert post(shared, path).startswith(b"HTTP/1.1 404 ")


def test_reply_to_an_open_is_as_clients_read_it(shared: BalancedHosts) -> None:
    """rtmpdump looks for Content-Length as it is written here, and takes no chunks."""
    head, _, body = post(shared, "/open/1").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nContent-Length: 17" in head
    assert b"\r\nContent-Type: application/x-fcs" in head
    assert b"close" not in head.lower()
    assert re.fullmatch(rb"[ABC][0-9A-Za-z]{15}\n", body)


def policy_file(hosts: BalancedHosts) -> bytes:
    """The reply to a request for one."""
    with hosts.connect(data=b"GET /crossdomain.xml HTTP/1.1\r\nHost: media.example.com\r\n\r\n") as client:
        return client.recv(4096)


def assert_websocket(hosts: BalancedHosts) -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: media.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Origin: http://www.example.com\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    with hosts.connect(data=head) as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
        client.sendall(b"\x82\x85\0\0\0\0hello")
        assert client.recv(4096).endswith(b"hello")


def test_policy_file_passes(shared: BalancedHosts) -> None:
    head, _, body = policy_file(shared).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"cross-domain-policy" in body


def test_websocket_passes(shared: BalancedHosts) -> None:
    assert_websocket(shared)


def test_websockets_and_policy_files_pass_beside_opens(shared: BalancedHosts) -> None:
    """nginx sends them on connections to a host that have carried /open/1."""
    for _ in range(4):
        assert new_hosts(shared, 3)
        assert_websocket(shared)
        assert policy_file(shared).startswith(b"HTTP/1.1 200 ")


def test_rtmp_and_policy_requests_pass(shared: BalancedHosts) -> None:
    """What is no HTTP, with the client's address in a PROXY header, which the stub sends back."""
    handshake = b"\x03" + bytes(1536)
    for port in (HTTP, RAW) if isinstance(shared.balancer, HaproxyBalancer) else (RAW,):
        with shared.connect(port, REQUEST, CLIENTS[1]) as client:
            reply = client.recv(4096)
            assert CLIENTS[1].encode() in reply or b"cross-domain-policy" in reply
        with shared.connect(port, handshake) as client:
            received = b""
            while not received.endswith(handshake):
                received += client.recv(4096)


def test_host_that_is_killed_ends_its_own_sessions_only(hosts: BalancedHosts) -> None:
    sessions = talks(hosts)
    assert_go_on(*sessions.values())
    hosts.hosts["A"].kill()
    lost = sessions.pop("A")
    eventually(lambda: lost.ended, "the end of the session on A")
    assert lost.error is None
    assert lost.client.status == 404
    assert_go_on(*sessions.values())
    assert new_hosts(hosts) <= {"B", "C"}
    assert all(talk.end() for talk in sessions.values())
    if isinstance(hosts.balancer, HaproxyBalancer):
        eventually(lambda: hosts.balancer.up() == {"B", "C"}, "the health of A")
    hosts.start_host("A")
    eventually(lambda: "A" in new_hosts(hosts, 3), "a new session on A")


def test_host_that_is_drained_keeps_its_sessions_and_gets_no_new_ones(hosts: BalancedHosts) -> None:
    sessions = talks(hosts)
    hosts.balancer.drain("B")
    if isinstance(hosts.balancer, NginxBalancer):
        hosts.reload()
    eventually(lambda: "B" not in new_hosts(hosts), "no new session on B")
    assert new_hosts(hosts) == {"A", "C"}
    assert_go_on(*sessions.values())
    assert all(talk.end() for talk in sessions.values())


def test_fourth_host_is_added_by_a_reload(hosts: BalancedHosts) -> None:
    sessions = talks(hosts)
    hosts.start_host("D")
    hosts.balancer.write_fourth()
    hosts.reload()
    eventually(lambda: "D" in new_hosts(hosts), "a new session on D")
    assert_go_on(*sessions.values())
    assert all(talk.end() for talk in sessions.values())
    if isinstance(hosts.balancer, HaproxyBalancer):  # nginx closes connections, and clients that cannot reconnect end
        assert [talk.client.connections for talk in sessions.values()] == [1, 1, 1]
