"""The sockets that the arbiter holds: bound once, used again, closed when nobody wants them."""

import os
import socket

import pytest

from flashpol.config import Address, ConfigError, SystemdSocket
from flashpol.process.sockets import bound_address
from flashpol.supervisor.listen_sockets import Listening
from testkit.processes import free_port

ANY = Address("127.0.0.1", 0)


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def listening() -> Listening:
    return Listening()


def test_an_address_that_is_wanted_again_is_not_bound_again(listening: Listening) -> None:
    [first] = listening.acquire([(ANY, 2)], 16)
    [second] = listening.acquire([(ANY, 2)], 16)
    assert first == second
    assert len({bound_address(sock) for sock in first}) == 1
    listening.keep_only([])
    assert [sock.fileno() for sock in first] == [-1, -1]


def test_addresses_that_the_kernel_chooses_are_as_many_as_were_asked_for(listening: Listening) -> None:
    first, second = listening.acquire([(ANY, 1), (ANY, 1)], 16)
    assert bound_address(first[0]) != bound_address(second[0])
    assert listening.acquire([(ANY, 1), (ANY, 1)], 16) == [first, second]
    listening.keep_only([])


def test_more_workers_get_more_sockets_and_fewer_keep_them(listening: Listening) -> None:
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
def test_an_address_that_covers_one_of_ours_takes_a_restart(listening: Listening, one: str, other: str) -> None:
    port = free_port()
    [held] = listening.acquire([(Address(one, port), 1)], 16)
    with pytest.raises(ConfigError, match=r"is ours, .*: restart the server"):
        listening.acquire([(Address(other, port), 1)], 16)
    assert listening.acquire([(Address(one, port), 2)], 16)[0][:1] == held
    listening.keep_only([])
    listening.acquire([(Address(other, port), 1)], 16)
    listening.keep_only([])


def test_a_mistake_changes_nothing(listening: Listening) -> None:
    free = Address("127.0.0.1", free_port())
    [held] = listening.acquire([(ANY, 1)], 16)
    before = files()
    with pytest.raises(ConfigError, match="not an address of this host"):
        listening.acquire([(ANY, 3), (free, 2), (Address("192.0.2.1", 0), 1)], 16)
    assert files() == before
    assert listening.acquire([(ANY, 1)], 16) == [held]
    listening.keep_only([])


def test_release_closes_what_nobody_wants(listening: Listening) -> None:
    one, two = listening.acquire([(ANY, 2), (Address("127.0.0.1", free_port()), 2)], 16)
    listening.release(two)
    assert [sock.fileno() for sock in one] == [-1, -1]
    assert all(sock.fileno() >= 0 for sock in two)
    [again] = listening.acquire([(ANY, 1)], 16)
    assert again[0].fileno() >= 0
    listening.keep_only([])


def test_what_systemd_hands_over_is_for_all_workers_and_stays() -> None:
    four, six = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    listening = Listening({SystemdSocket("flash"): [four, six]})
    [sockets] = listening.acquire([(SystemdSocket("flash"), 3)], 16)
    for slot in range(3):
        assert sockets[slot::3] == [four, six]
    listening.release([])
    assert listening.acquire([(SystemdSocket("flash"), 1)], 16) == [[four, six]]
    listening.keep_only([six])
    assert (four.fileno(), six.fileno() >= 0) == (-1, True)
    listening.keep_only([])
    assert six.fileno() == -1


def test_a_name_that_systemd_does_not_know(listening: Listening) -> None:
    with pytest.raises(ConfigError, match=r"^systemd:flash: systemd hands over no such socket \(but none\)"):
        listening.acquire([(SystemdSocket("flash"), 1)], 16)
