"""Listen sockets: how they are bound, and the message when they cannot be."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from flashpol.config import Address, ConfigError
from flashpol.process.sockets import accept_queue, bind, bound_address, explain, prepare_listening
from testkit.clients import connect
from testkit.polling import eventually
from testkit.processes import as_nobody

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bound(stack: ExitStack, address: Address, count: int = 1, backlog: int = 16) -> list[socket.socket]:
    return [stack.enter_context(sock) for sock in bind(address, count, backlog)]


def refused(address: Address, count: int = 1) -> str:
    with pytest.raises(ConfigError) as caught:
        bind(address, count, 16)
    message = str(caught.value)
    assert message.startswith(f"{address}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("count", [1, 2, 5])
def test_bind_returns_count_sockets_on_one_port(stack: ExitStack, count: int) -> None:
    sockets = bound(stack, LOOPBACK, count, backlog=300)
    assert len(sockets) == count
    assert len({bound_address(sock) for sock in sockets}) == 1
    assert bound_address(sockets[0]).port > 0
    for sock in sockets:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        assert not sock.getblocking()
        assert not sock.get_inheritable()
    clients = [stack.enter_context(connect(bound_address(sockets[0]))) for _ in range(60 * count)]
    accepted = [eventually(lambda sock=sock: accept_queue(sock)[0], "a share of the connections") for sock in sockets]
    assert len(clients) >= sum(accepted) >= count


def test_bind_of_a_given_port_binds_it(stack: ExitStack) -> None:
    [first] = bind(LOOPBACK, 1, 16)
    address = bound_address(first)
    first.close()
    assert bound_address(bound(stack, address, 2)[1]) == address


def test_bind_of_a_port_with_connections_in_time_wait_succeeds(stack: ExitStack) -> None:
    [first] = bind(LOOPBACK, 1, 16)
    address = bound_address(first)
    with connect(address):
        eventually(lambda: accept_queue(first)[0] == 1, "the connection")
        first.accept()[0].close()  # the server closes first, so TIME_WAIT is on its side
    first.close()
    assert bound_address(bound(stack, address)[0]) == address


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("others", [1, 3])
def test_bind_of_a_port_in_use_is_refused(stack: ExitStack, count: int, others: int) -> None:
    address = bound_address(bound(stack, LOOPBACK, others)[0])
    message = refused(address, count)
    assert "in use" in message
    assert "another port" in message


def test_bind_of_a_port_in_use_with_so_reuseport_is_refused(stack: ExitStack) -> None:
    other = stack.enter_context(socket.socket())
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    other.bind(LOOPBACK)
    other.listen()
    assert "in use" in refused(bound_address(other), 2)


def test_bind_that_fails_leaves_no_socket_open(stack: ExitStack) -> None:
    address = bound_address(bound(stack, LOOPBACK)[0])
    before = os.listdir("/proc/self/fd")
    refused(address, 3)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up the right to bind low ports")
@pytest.mark.skipif(
    int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 843, reason="everybody may bind port 843"
)
def test_bind_of_a_low_port_without_the_right_names_the_ways_out() -> None:
    answer = as_nobody(lambda: bind(Address("127.9.8.43", 843), 1, 16))
    assert answer.startswith("ConfigError: 127.9.8.43:843: no right")
    for way_out in ("CAP_NET_BIND_SERVICE", "socket activation", "redirect", "another port"):
        assert way_out in answer
    assert "\n" not in answer


def test_bind_of_another_hosts_address_is_refused() -> None:
    assert "not an address of this host" in refused(Address("192.0.2.1", 0))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EADDRINUSE, ("in use", "ss -ltnp", "another port")),
        (errno.EACCES, ("CAP_NET_BIND_SERVICE",)),
        (errno.EADDRNOTAVAIL, ("ip address",)),
        (errno.EAFNOSUPPORT, ("no IPv6", "0.0.0.0:843")),
        (errno.EMFILE, ("cannot listen", os.strerror(errno.EMFILE))),
    ],
)
def test_explain_names_the_address_and_what_to_do(number: int, words: tuple[str, ...]) -> None:
    message = explain(Address("::1", 843), OSError(number, os.strerror(number)))
    for word in ("[::1]:843: ", *words):
        assert word in message
    assert "\n" not in message


def test_bind_of_ipv6_wildcard_serves_ipv4_too(stack: ExitStack) -> None:
    try:
        [only, *_] = bound(stack, Address("::1", 0))
    except ConfigError:
        pytest.skip("this host has no IPv6 loopback")
    assert only.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    assert str(bound_address(only)).startswith("[::1]:")
    [dual, *_] = bound(stack, Address("::", 0), 2)
    assert dual.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 0
    port = bound_address(dual).port
    for host in ("::1", "127.0.0.1"):
        stack.enter_context(connect((host, port)))


def test_accept_queue_counts_waiting_connections(stack: ExitStack) -> None:
    [sock] = bound(stack, LOOPBACK, backlog=7)
    assert accept_queue(sock) == (0, 7)
    for number in range(1, 4):
        stack.enter_context(connect(bound_address(sock)))
        eventually(lambda n=number: accept_queue(sock) == (n, 7), f"{number} in the queue")
    stack.enter_context(sock.accept()[0])
    assert accept_queue(sock) == (2, 7)


def test_accept_queue_limit_is_at_most_somaxconn(stack: ExitStack) -> None:
    [sock] = bound(stack, LOOPBACK, backlog=65535)
    assert accept_queue(sock)[1] == min(65535, int(Path("/proc/sys/net/core/somaxconn").read_text()))


def test_prepare_listening_sets_what_connections_inherit(stack: ExitStack) -> None:
    [sock] = bound(stack, LOOPBACK)
    for keepalive, nodelay in ((None, 0), (60, 1), (0, 1)):
        prepare_listening(sock, user_timeout=2.5, keepalive=keepalive)
        stack.enter_context(connect(bound_address(sock)))
        sock.setblocking(True)
        with sock.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == nodelay
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == bool(keepalive)
            if keepalive:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == keepalive
    prepare_listening(sock, user_timeout=0)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
