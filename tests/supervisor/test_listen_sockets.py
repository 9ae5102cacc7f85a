"""Listen sockets: bound once, used again, closed when no configuration names them."""

import os
import socket

import pytest

from flashpol.config import Address, ConfigError, SystemdSocket
from flashpol.process.sockets import bound_address
from flashpol.supervisor.listen_sockets import ListenSockets
from testkit.processes import free_port

ANY = Address("127.0.0.1", 0)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def listening() -> ListenSockets:
    return ListenSockets()


def test_acquire_of_a_held_address_returns_the_same_sockets(listening: ListenSockets) -> None:
    [first] = listening.acquire([(ANY, 2)], 16)
    [second] = listening.acquire([(ANY, 2)], 16)
    assert first == second
    assert len({bound_address(sock) for sock in first}) == 1
    listening.keep_only([])
    assert [sock.fileno() for sock in first] == [-1, -1]


def test_acquire_prepares_new_sockets_before_they_listen(listening: ListenSockets) -> None:
    prepared: list[tuple[int, bool]] = []

    def prepare(sock: socket.socket) -> None:
        prepared.append((sock.fileno(), bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))))

    [first, _] = listening.acquire([(ANY, 1), (ANY, 1)], 16, [prepare])
    [more, _] = listening.acquire([(ANY, 2), (ANY, 1)], 16, [prepare])
    assert more[0] == first[0]
    assert prepared == [(sock.fileno(), False) for sock in more]
    listening.keep_only([])


def test_acquire_of_port_0_twice_returns_two_ports(listening: ListenSockets) -> None:
    first, second = listening.acquire([(ANY, 1), (ANY, 1)], 16)
    assert bound_address(first[0]) != bound_address(second[0])
    assert listening.acquire([(ANY, 1), (ANY, 1)], 16) == [first, second]
    listening.keep_only([])


def test_acquire_for_more_workers_adds_sockets_and_for_fewer_keeps_them(listening: ListenSockets) -> None:
    [one] = listening.acquire([(ANY, 1)], 16)
    [three] = listening.acquire([(ANY, 3)], 16)
    assert three[:1] == one
    assert len({bound_address(sock) for sock in three}) == 1
    assert listening.acquire([(ANY, 1)], 16) == [three]
    clients = [socket.create_connection(bound_address(one[0])) for _ in range(3)]
    for client in clients:
        client.close()
    listening.keep_only([])


@pytest.mark.parametrize(("one", "other"), [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "::"), ("::", "127.0.0.1")])
def test_acquire_of_an_overlapping_address_is_refused(listening: ListenSockets, one: str, other: str) -> None:
    port = free_port()
    [held] = listening.acquire([(Address(one, port), 1)], 16)
    with pytest.raises(ConfigError, match=r"overlaps .*, which is still open; restart"):
        listening.acquire([(Address(other, port), 1)], 16)
    assert listening.acquire([(Address(one, port), 2)], 16)[0][:1] == held
    listening.keep_only([])
    listening.acquire([(Address(other, port), 1)], 16)
    listening.keep_only([])


def test_acquire_that_fails_changes_nothing(listening: ListenSockets) -> None:
    free = Address("127.0.0.1", free_port())
    [held] = listening.acquire([(ANY, 1)], 16)
    before = files()
    with pytest.raises(ConfigError, match="not an address of this host"):
        listening.acquire([(ANY, 3), (free, 2), (Address("192.0.2.1", 0), 1)], 16)
    assert files() == before
    assert listening.acquire([(ANY, 1)], 16) == [held]
    listening.keep_only([])


def test_release_closes_unwanted_sockets(listening: ListenSockets) -> None:
    one, two = listening.acquire([(ANY, 2), (Address("127.0.0.1", free_port()), 2)], 16)
    listening.release(two)
    assert [sock.fileno() for sock in one] == [-1, -1]
    assert all(sock.fileno() >= 0 for sock in two)
    [again] = listening.acquire([(ANY, 1)], 16)
    assert again[0].fileno() >= 0
    listening.keep_only([])


def test_acquire_of_systemd_sockets_gives_all_workers_the_same() -> None:
    four, six = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    listening = ListenSockets({SystemdSocket("flash"): [four, six]})
    [sockets] = listening.acquire([(SystemdSocket("flash"), 3)], 16)
    for slot in range(3):
        assert sockets[slot::3] == [four, six]
    listening.release([])
    assert listening.acquire([(SystemdSocket("flash"), 1)], 16) == [[four, six]]
    listening.keep_only([six])
    assert (four.fileno(), six.fileno() >= 0) == (-1, True)
    listening.keep_only([])
    assert six.fileno() == -1


def test_acquire_of_an_unknown_systemd_name_is_refused(listening: ListenSockets) -> None:
    with pytest.raises(ConfigError, match=r"^systemd:flash: systemd passed no sockets; see FileDescriptorName="):
        listening.acquire([(SystemdSocket("flash"), 1)], 16)
