"""PolicyServer inside a program that has a gevent hub."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import gevent
import pytest
from gevent import socket as gsocket

import flashpol.hub
from flashpol import PolicyServer
from flashpol._fastpath import Guarded
from flashpol.config import ConfigError, ConnectionTimeouts
from flashpol.policy import parse
from flashpol.process.sockets import accept_queue
from testkit.accounts import assert_settled, outcomes
from testkit.clients import REQUEST
from testkit.serving import REPLY, TIMEOUTS

POLICY = REPLY[:-1]
LOOPBACK = "127.0.0.1:0"


def ask(server: PolicyServer) -> bytes:
    with gsocket.create_connection(tuple(server.address), timeout=4) as client:
        client.sendall(REQUEST)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.fixture
def make(no_leaked_files: None) -> Iterator[Callable[..., PolicyServer]]:
    made: list[PolicyServer] = []

    def server(*args, **changes) -> PolicyServer:
        made.append(PolicyServer(*args, **({"timeouts": TIMEOUTS} | changes)))
        return made[-1]

    yield server
    for found in made:
        found.stop(0)
        assert_settled(found.counters)
    made.clear()


def test_server_of_three_lines_replies(policy_file: Path) -> None:
    server = PolicyServer(LOOPBACK, policy=policy_file)
    server.start()
    assert ask(server) == REPLY
    assert server.stop() is True


def test_memory_error_in_the_hub_ends_neither_the_program_nor_the_server(
    make: Callable[..., PolicyServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In each callback of the server, at its first call."""

    def guarded(callback: Callable[[], object], on_error: Callable[[BaseException], object]) -> Guarded:
        errors = [MemoryError()]

        def fails_once() -> None:
            if errors:
                raise errors.pop()
            callback()

        return Guarded(fails_once, on_error)

    monkeypatch.setattr(flashpol.hub, "Guarded", guarded)
    server = make(LOOPBACK, POLICY)
    server.start()
    assert ask(server) == REPLY
    with gsocket.create_connection(tuple(server.address), timeout=4) as client:
        client.sendall(REQUEST[:5])
        gevent.sleep(0.05)
        client.sendall(REQUEST[5:])
        assert b"".join(iter(lambda: client.recv(1 << 16), b"")) == REPLY
    failed = [record for record in caplog.records if record.exc_info]
    assert [record.exc_info[0] for record in failed if record.exc_info] == [MemoryError, MemoryError]
    del failed
    caplog.clear()  # the tracebacks keep the server


@pytest.mark.parametrize("kind", [str, Path])
def test_policy_as_a_file_is_served(make: Callable[..., PolicyServer], policy_file: Path, kind: type) -> None:
    server = make(LOOPBACK, kind(policy_file))
    server.start()
    assert ask(server) == REPLY


def test_policy_as_a_folder_is_merged(make: Callable[..., PolicyServer], policy_file: Path) -> None:
    server = make(LOOPBACK, policy_file.parent)
    server.start()
    assert parse(ask(server)) == parse(REPLY)


def test_dialect_silverlight_serves_without_nul_and_checks_the_policy(make: Callable[..., PolicyServer]) -> None:
    policy = b"<access-policy><cross-domain-access></cross-domain-access></access-policy>"
    server = make(LOOPBACK, policy, dialect="silverlight", timeouts=ConnectionTimeouts(terminator_grace=30))
    server.start()
    with gsocket.create_connection(tuple(server.address), timeout=4) as client:
        client.sendall(REQUEST[:-1])
        assert b"".join(iter(lambda: client.recv(1 << 16), b"")) == policy
    for wrong in ({"policy": POLICY, "dialect": "silverlight"}, {"policy": policy}, {"policy": policy, "dialect": "x"}):
        with pytest.raises(ConfigError):
            PolicyServer(LOOPBACK, **wrong)


def test_policy_as_bytes_is_served(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY)
    server.start()
    assert ask(server) == REPLY


def test_allow_makes_a_policy_of_the_grants(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, allow=["*.example.com:1935,8000-8100"])
    server.start()
    reply = ask(server)
    assert reply.endswith(b"\0")
    (grant,) = parse(reply[:-1]).grants
    assert grant.domain.matches("games.example.com")
    assert 8050 in grant.ports


def test_listen_on_port_0_has_the_kernels_port(make: Callable[..., PolicyServer]) -> None:
    first, second = make(LOOPBACK, POLICY), make(LOOPBACK, POLICY)
    assert 0 not in (first.address.port, second.address.port)
    assert first.address != second.address


def test_listen_on_a_socket_serves_its_address(make: Callable[..., PolicyServer]) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    server = make(sock, POLICY)
    assert tuple(server.address) == sock.getsockname()
    server.start()
    assert ask(server) == REPLY


@pytest.mark.parametrize("host", ["[::1]", "[::]"])
def test_listen_on_ipv6_serves_ipv6_and_mapped_ipv4(make: Callable[..., PolicyServer], host: str) -> None:
    try:
        server = make(f"{host}:0", POLICY)
    except ConfigError as error:
        pytest.skip(str(error))
    server.start()
    hosts = ["::1", "127.0.0.1"] if host == "[::]" else ["::1"]
    for address in hosts:
        with gsocket.create_connection((address, server.address.port), timeout=4) as client:
            client.sendall(REQUEST)
            assert client.recv(1000) == REPLY
    assert server.counters.replies == len(hosts)


def test_clients_before_start_wait_in_the_queue(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY)
    asking = gevent.spawn(ask, server)
    gevent.sleep(0.05)
    assert server.counters["accepted"] == 0
    server.start()
    assert asking.get(timeout=4) == REPLY


def test_serve_forever_returns_after_stop(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY)
    serving = gevent.spawn(server.serve_forever)
    assert ask(server) == REPLY
    assert not serving.ready()
    assert server.stop() is True
    serving.get(timeout=4)
    with pytest.raises(ConnectionRefusedError):
        ask(server)


def test_stop_that_cuts_a_client_off_returns_false(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY, timeouts=ConnectionTimeouts(request_timeout=60))
    server.start()
    with gsocket.create_connection(tuple(server.address)) as silent:
        gevent.sleep(0)
        assert server.stop(0.05) is False
        assert silent.recv(1) == b""
    assert outcomes(server.counters) == {"shutdown": 1}


def test_stop_twice_returns_true(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY)
    server.start()
    assert ask(server) == REPLY
    assert [server.stop(), server.stop()] == [True, True]


def test_stop_without_start_returns_true(make: Callable[..., PolicyServer]) -> None:
    assert make(LOOPBACK, POLICY).stop() is True


def test_counters_after_many_requests_are_exact(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY)
    server.start()
    gevent.joinall([gevent.spawn(ask, server) for _ in range(100)], timeout=4, raise_error=True)
    assert server.counters["accepted"] == server.counters.replies == 100
    assert server.counters["reply_bytes"] == 100 * len(REPLY)
    assert sum(server.counters.all("buckets")) == 100
    assert server.counters["duration_ns"] > 0


def test_greenlets_of_the_program_run_while_clients_ask(make: Callable[..., PolicyServer]) -> None:
    """Clients in threads send requests all the time; a greenlet of the program goes on."""
    server = make(LOOPBACK, POLICY)
    server.start()
    done = threading.Event()
    replies = []

    def client() -> None:
        while not done.is_set():
            with socket.create_connection(tuple(server.address), 4) as sock:
                sock.sendall(REQUEST)
                replies.append(sock.recv(1000))

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    with gevent.Timeout(4):
        turns = 0
        while len(replies) < 500 or turns < 50:
            gevent.sleep(0.001)
            turns += 1
        done.set()
        while any(thread.is_alive() for thread in threads):
            gevent.sleep(0.001)
    assert set(replies) == {REPLY}


# ------------------------------------------------------------------------------------------------------------- errors


def one_line(error: pytest.ExceptionInfo[ConfigError]) -> str:
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


@pytest.mark.parametrize("arguments", [{}, {"policy": POLICY, "allow": ["*:80"]}])
def test_policy_and_allow_both_or_neither_is_an_error(no_leaked_files: None, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        PolicyServer(LOOPBACK, **arguments)
    assert "policy or allow" in one_line(error)


@pytest.mark.parametrize("listen", ["", "localhost:843", "127.0.0.1", "127.0.0.1:99999", "::1:843", "203.0.113.7:0"])
def test_listen_on_an_address_that_cannot_be_bound_is_an_error(no_leaked_files: None, listen: str) -> None:
    with pytest.raises(ConfigError) as error:
        PolicyServer(listen, POLICY)
    assert listen in one_line(error)


def test_listen_on_a_port_in_use_is_an_error(make: Callable[..., PolicyServer]) -> None:
    taken = make(LOOPBACK, POLICY).address
    with pytest.raises(ConfigError) as error:
        PolicyServer(str(taken), POLICY)
    assert "in use" in one_line(error)


@pytest.mark.parametrize("data", [b"", b"hello", b"<access-policy/>", b"<cross-domain-policy>"])
def test_policy_of_invalid_bytes_is_an_error(no_leaked_files: None, data: bytes) -> None:
    with pytest.raises(ConfigError) as error:
        PolicyServer(LOOPBACK, data)
    one_line(error)


@pytest.mark.parametrize("data", [b"", b"hello"])
def test_policy_of_an_invalid_file_is_an_error_with_its_path(
    no_leaked_files: None, policy_file: Path, data: bytes
) -> None:
    policy_file.write_bytes(data)
    with pytest.raises(ConfigError) as error:
        PolicyServer(LOOPBACK, policy_file)
    assert str(policy_file) in one_line(error)


def test_policy_of_a_missing_file_is_an_error(no_leaked_files: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        PolicyServer(LOOPBACK, tmp_path / "none.xml")
    assert "No such file" in one_line(error)


@pytest.mark.parametrize("module", [socket, gsocket])
def test_socket_of_the_program_after_stop_is_as_before(make: Callable[..., PolicyServer], module: ModuleType) -> None:
    """A socket of gevent or the standard library is served, and after `stop` has its backlog and its clients."""
    with module.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(77)
        server = make(listener, POLICY)
        server.start()
        assert ask(server) == REPLY
        assert server.stop(1)
        assert accept_queue(listener) == (0, 77)
        with gsocket.create_connection(listener.getsockname()):
            gsocket.wait_read(listener.fileno(), timeout=4)
            listener.accept()[0].close()


def test_socket_that_does_not_listen_is_an_error(no_leaked_files: None) -> None:
    with socket.socket() as sock, pytest.raises(ConfigError) as error:
        PolicyServer(sock, POLICY)
    assert "listen()" in one_line(error)


def test_start_after_stop_raises(make: Callable[..., PolicyServer]) -> None:
    server = make(LOOPBACK, POLICY)
    server.stop()
    with pytest.raises(RuntimeError, match="was stopped"):
        server.start()


@pytest.mark.parametrize("change", [{"request_timeout": 1e12}, {"linger_bytes": -1}, {"reply_timeout": float("nan")}])
def test_timeouts_out_of_range_are_an_error(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as error:
        ConnectionTimeouts(**change)
    assert one_line(error).startswith(f"{next(iter(change))} = ")


def test_allow_with_an_invalid_grant_is_an_error(no_leaked_files: None) -> None:
    with pytest.raises(ConfigError) as error:
        PolicyServer(LOOPBACK, allow=["example.com:ninety"])
    assert "example.com:ninety" in one_line(error) or "ninety" in one_line(error)


def test_policy_server_has_no_lines_to_other_processes(make: Callable[..., PolicyServer]) -> None:
    """Lines are the arbiter's, and a program that embeds a server has none."""

    def unix_sockets() -> set[str]:
        names = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
        return {name for fd in os.listdir("/proc/self/fd") if (name := link(fd)) and name[8:-1] in names}

    def link(fd: str) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the descriptor of the listing
            return ""

    before = unix_sockets()
    server = make(LOOPBACK, POLICY)
    server.start()
    assert ask(server) == REPLY
    assert unix_sockets() == before
