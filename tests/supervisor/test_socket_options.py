"""Listen sockets that a worker has spoilt: what is put back, what is reported, and what is replaced."""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from functools import partial

import pytest

from flashpol.config import Address
from flashpol.process.sockets import bind, bound_address, prepare_listening
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.supervisor.socket_options import TABLE, Option, Options, Values, of_new_socket, set_by
from testkit.processes import as_nobody, free_port

BACKLOG = 16
SO_ATTACH_FILTER, SO_LOCK_FILTER, SO_ATTACH_REUSEPORT_CBPF = 26, 44, 51
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(params=["127.0.0.1", "::1"])
def sock(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    [made] = bind(Address(request.param, free_port(request.param)), 1, BACKLOG)
    with made:
        yield made


def clients(place: tuple[str, int], count: int) -> list[socket.socket]:
    made = []
    for _ in range(count):
        made.append(socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET))
        made[-1].settimeout(2)
        made[-1].connect(place)
    return made


def accepted(sock: socket.socket) -> int:
    count = 0
    while True:
        try:
            sock.accept()[0].close()
        except OSError:
            return count
        count += 1


def spread(sockets: list[socket.socket], count: int = 40) -> list[int]:
    """How many of `count` clients each socket gets."""
    made = clients(bound_address(sockets[0]), count)
    found = [accepted(sock) for sock in sockets]
    for client in made:
        client.close()
    return found


def program(*instructions: tuple[int, int, int, int]) -> tuple[bytes, object]:
    """A struct sock_fprog, and what must live as long as it."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
    return struct.pack("HL", len(instructions), ctypes.addressof(code)), code


def attach(sock: socket.socket, option: int, result: int) -> None:
    """A program that always returns `result`."""
    data, _code = program((6, 0, 0, result))
    sock.setsockopt(socket.SOL_SOCKET, option, data)


def relaying(keepalive: int) -> Values:
    return set_by(partial(prepare_listening, user_timeout=30.0, keepalive=keepalive))


def values(sock: socket.socket) -> dict[Option, bytes]:
    return dict(Options.of(sock, BACKLOG).values)


# ------------------------------------------------------------------------------------------------------------- options


def spoil(sock: socket.socket, option: Option) -> bool:
    """Set it to anything else; False if that cannot be done."""
    before = values(sock)
    texts = [b"reno", b"cubic"] if option == (socket.IPPROTO_TCP, socket.TCP_CONGESTION) else []
    numbers = [value for number in (1, 0, 2, 5, 64, 1000, 65535, 1 << 20) for value in (
        struct.pack("i", number), struct.pack("ii", number, 0), struct.pack("qq", number, number),
    )]  # fmt: skip
    for value in [*texts, *numbers]:
        try:
            sock.setsockopt(*option, value)
        except OSError:
            continue
        if values(sock) != before:
            return True
    return False


@as_root
@pytest.mark.parametrize("option", TABLE, ids=str)
def test_option_that_a_user_without_rights_changed_is_restored(sock: socket.socket, option: Option) -> None:
    wanted = Options.of(sock, BACKLOG)
    if as_nobody(lambda: spoil(sock, option)) != "True":
        pytest.skip("this kernel has no such option, or not for this user and family")
    assert values(sock) != wanted.values
    assert wanted.restore(sock) == ""
    found = values(sock)
    if option == (socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP):  # 0, for none, cannot be set again
        assert struct.unpack("i", found.pop(option))[0] > 1 << 29
    if option == (socket.IPPROTO_IP, socket.IP_OPTIONS):  # the default that it shows was computed with them
        del found[socket.IPPROTO_TCP, socket.TCP_MAXSEG]
    assert found == {each: wanted.values[each] for each in found}


@as_root
def test_most_options_of_the_table_can_be_changed_by_a_user_without_rights() -> None:
    """Otherwise the test above tests nothing."""
    [sock] = bind(Address("::1", 0), 1, BACKLOG)
    with sock:
        changed = [option for option in TABLE if as_nobody(lambda option=option: spoil(sock, option)) == "True"]  # type: ignore[misc]
    assert len(changed) > len(TABLE) * 0.8


def test_restore_of_a_socket_that_nobody_changed_sets_nothing(
    sock: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Options.of(sock, BACKLOG)

    class Watched(socket.socket):
        def setsockopt(self, level: int, option: int, *value: object) -> None:  # type: ignore[override]
            assert option in (27, 68), "only programs are detached unseen"
            super().setsockopt(level, option, *value)  # type: ignore[call-overload]

    with Watched(fileno=os.dup(sock.fileno())) as watched:
        assert wanted.restore(watched) == ""


def test_set_by_returns_what_a_function_sets(sock: socket.socket) -> None:
    """A worker sets these itself: what the arbiter restores later must be the same."""
    for keepalive in (0, 77):
        wanted = relaying(keepalive)
        assert len(wanted) == (4 if keepalive else 3)
        prepare_listening(sock, user_timeout=30.0, keepalive=keepalive)
        found = values(sock)
        assert {option: found[option] for option in wanted} == wanted


def test_new_socket_has_the_options_of_one_that_listens(sock: socket.socket) -> None:
    assert of_new_socket(sock.family) == values(sock)


# --------------------------------------------------------------------------------------------- queue, flags, programs


def test_socket_that_was_shut_down_or_shrunk_listens_again(sock: socket.socket) -> None:
    wanted = Options.of(sock, BACKLOG)
    sock.listen(0)
    sock.shutdown(socket.SHUT_RDWR)
    assert wanted.restore(sock) == ""
    made = clients(bound_address(sock), 10)
    assert accepted(sock) == 10
    for client in made:
        client.close()


def test_flags_of_the_descriptor_are_restored(sock: socket.socket) -> None:
    wanted = Options.of(sock, BACKLOG)
    fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sock, fcntl.F_SETFL, os.O_ASYNC)  # blocking, and each client is a SIGIO
    assert wanted.restore(sock) == ""
    assert fcntl.fcntl(sock, fcntl.F_GETFL) & (os.O_NONBLOCK | os.O_ASYNC) == os.O_NONBLOCK


def test_program_that_takes_the_clients_of_all_sockets_is_detached() -> None:
    sockets = bind(Address("127.0.0.1", free_port()), 3, 100)
    wanted = [Options.of(sock, 100) for sock in sockets]
    as_nobody(lambda: attach(sockets[1], SO_ATTACH_REUSEPORT_CBPF, 2))
    assert spread(sockets) == [0, 0, 40]
    sockets[1].shutdown(socket.SHUT_RDWR)  # then it is not of the group that has the program
    assert wanted[1].restore(sockets[1]) == ""
    assert all(spread(sockets))
    for sock in sockets:
        sock.close()


@as_root
def test_filter_is_detached_and_a_locked_one_reported() -> None:
    """Linux lets only root attach one to TCP from 6.16 on."""
    [sock] = bind(Address("127.0.0.1", free_port()), 1, BACKLOG)
    with sock:
        wanted = Options.of(sock, BACKLOG)
        try:
            attach(sock, SO_ATTACH_FILTER, 0)
        except PermissionError:
            pytest.skip("this container may not")
        with pytest.raises(TimeoutError):
            clients(bound_address(sock), 1)
        assert wanted.restore(sock) == ""
        assert spread([sock], 5) == [5]
        sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
        assert wanted.restore(sock) == "its packet filter is locked"


# --------------------------------------------------------------------------------------------------------- replacement


def connect_it_elsewhere(sock: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        sock.shutdown(socket.SHUT_RDWR)
        sock.setblocking(True)
        sock.connect(other.getsockname())


def lock_its_filter(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)


def give_its_port_up(sock: socket.socket) -> None:
    """One that the kernel chose."""
    sock.shutdown(socket.SHUT_RDWR)
    sock.listen(1)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("spoil", [connect_it_elsewhere, lock_its_filter, give_its_port_up])
def test_restore_of_a_socket_beyond_repair_replaces_it(
    count: int, spoil: object, caplog: pytest.LogCaptureFixture
) -> None:
    listening = ListenSockets()
    port = 0 if spoil is give_its_port_up else free_port()
    [sockets] = listening.acquire([(Address("127.0.0.1", port), count)], 100)
    place = bound_address(sockets[0])
    spoilt, *others = sockets
    listening.require([spoilt], 50, relaying(99))
    spoil(spoilt)  # type: ignore[operator]
    new = listening.restore(spoilt)
    assert new is not spoilt
    assert spoilt.fileno() == -1
    assert bound_address(new) == place
    assert not new.getblocking()
    assert new.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 99
    assert all(spread([new, *others]))
    assert f"a worker has spoilt a listen socket of {place}: " in caplog.text
    assert listening.restore(new) is new
    assert listening.acquire([(Address("127.0.0.1", port), count)], 100) == [[new, *others]]
    assert new.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == int(count > 1)
    listening.keep_only([])
    assert new.fileno() == -1


def test_restore_that_cannot_replace_a_socket_keeps_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = ListenSockets()
    [[sock]] = listening.acquire([(Address("127.0.0.1", free_port()), 1)], 100)
    lock_its_filter(sock)

    def refused(*_: object, **__: object) -> socket.socket:
        raise OSError(errno.EADDRNOTAVAIL, "gone")

    monkeypatch.setattr("flashpol.process.sockets._bound", refused)
    assert listening.restore(sock) is sock
    assert "it cannot be replaced: 127.0.0.1" in caplog.text
    assert spread([sock], 5) == [5]
    listening.keep_only([])


def test_restore_of_a_socket_of_systemd_beyond_repair_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    from flashpol.config import SystemdSocket

    sock = socket.create_server(("127.0.0.1", 0), backlog=33)
    listening = ListenSockets({SystemdSocket("flash"): [sock]})
    sock.listen(1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 30)
    listening.require([sock], 5, {})
    assert listening.restore(sock) is sock
    assert spread([sock], 20) == [20], "its backlog is that of its unit"
    lock_its_filter(sock)
    assert listening.restore(sock) is sock
    assert "restart the socket unit of systemd" in caplog.text
    listening.keep_only([])


def test_restore_of_a_socket_that_is_closed_does_nothing() -> None:
    listening = ListenSockets()
    [[sock]] = listening.acquire([(Address("127.0.0.1", 0), 1)], 100)
    listening.keep_only([])
    assert listening.restore(sock) is sock
