"""ConnectionTable and Acceptor at their limits: wrong arguments, hooks that raise, bursts, many connections at once."""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable

import pytest

from flashpol._fastpath import BLOCK_SIZE, LAYOUT, REASONS, Acceptor, Account, ConnectionTable, PolicyReply
from flashpol.counters.layout import GAUGES
from flashpol.counters.shared import SharedCounters
from testkit.clients import REQUEST, connect, deliver, until_end
from testkit.fastpath_loop import LINGER_BYTES, TIMES, Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

SETTINGS = {"account": Account(capacity=1024), "on_slow_reply": print, "on_error": print}
BURST = 64
DISPATCH = 128


def block() -> memoryview:
    return SharedCounters(1, 1).memory(0, 0)


def acceptor(connection_table: ConnectionTable, fd: int = -1, **changes) -> Acceptor:
    arguments = {"reply": PolicyReply(REPLY), "block": block(), "on_exhausted": print} | changes
    timeouts = connection_table.add_timeouts(**TIMES) if connection_table else 0
    others = {"timeouts": timeouts, "linger_bytes": LINGER_BYTES, "reply_timeout": 1.0}
    return Acceptor(connection_table, fd, arguments.pop("reply"), arguments.pop("block"), **(others | arguments))


# --------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(("data", "error"), [(b"", ValueError), (None, TypeError), ("text", TypeError), (5, TypeError)])
def test_policy_reply_refuses_what_is_not_bytes(data: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        PolicyReply(data)  # type: ignore[arg-type]


def test_policy_reply_has_its_bytes_and_length() -> None:
    reply = PolicyReply(REPLY)
    assert (reply.data, len(reply)) == (REPLY, len(REPLY))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"signatures": [(b"", "http")]}, ValueError),
        ({"signatures": [(b"123456789", "http")]}, ValueError),
        ({"signatures": [(b"GET ", "gopher")]}, ValueError),
        ({"signatures": [("GET ", "http")]}, TypeError),
        ({"signatures": [b"GET "]}, ValueError),
        ({"signatures": [(bytes([n]), "other") for n in range(33)]}, ValueError),
        ({"signatures": None}, TypeError),
        ({"account": None}, TypeError),
        ({"access_log": 1.5}, ValueError),
        ({"access_log": "all"}, TypeError),
    ],
)
def test_connection_table_refuses_wrong_arguments(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        ConnectionTable(**(SETTINGS | changes))


def test_connection_table_that_failed_to_initialise_closes_no_descriptor() -> None:
    spare = os.open(os.devnull, os.O_RDONLY)  # becomes descriptor 0 where standard input is closed
    try:
        for _ in range(2):
            with pytest.raises(TypeError):
                ConnectionTable(**(SETTINGS | {"access_log": "all"}))
            os.fstat(0)
    finally:
        os.close(spare)


@pytest.mark.parametrize("missing", SETTINGS)
def test_connection_table_requires_each_setting(missing: str) -> None:
    with pytest.raises(TypeError):
        ConnectionTable(**{name: value for name, value in SETTINGS.items() if name != missing})


def test_connection_table_takes_32_signatures() -> None:
    connection_table = ConnectionTable(**SETTINGS, signatures=[(bytes([n]) * 8, "other") for n in range(32)])
    assert connection_table.open == 0


def test_connection_table_without_a_descriptor_raises_emfile(many_files: int) -> None:
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
            assert len(taken) <= many_files
    except OSError:
        for left in (0, 1):  # none for the epoll set, then none for its timer
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                ConnectionTable(**SETTINGS)
            if not left:
                os.close(taken.pop())
    finally:
        for fd in taken:
            os.close(fd)


def test_connection_table_closes_its_descriptors_when_freed() -> None:
    connection_table = ConnectionTable(**SETTINGS)
    fd = connection_table.fileno()
    assert os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]"
    del connection_table
    assert not os.path.exists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"block": bytearray(BLOCK_SIZE // 2)}, ValueError),
        ({"block": bytearray()}, ValueError),
        ({"block": memoryview(bytearray(BLOCK_SIZE + 8))[1:]}, ValueError),
        ({"block": bytes(BLOCK_SIZE)}, (BufferError, ValueError)),
        ({"block": None}, TypeError),
        ({"reply": None}, TypeError),
        ({"reply": REPLY}, TypeError),
        ({"timeouts": 7}, ValueError),
        ({"timeouts": -1}, ValueError),
        ({"linger_bytes": -1}, OverflowError),
        ({"linger_bytes": 1 << 32}, OverflowError),
        ({"reply_timeout": "3 s"}, TypeError),
    ],
)
def test_acceptor_refuses_wrong_arguments(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        acceptor(ConnectionTable(**SETTINGS), **changes)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"capacity": -1}, OverflowError),
        ({"capacity": "many"}, TypeError),
        ({"max_sessions": -1}, ValueError),
        ({"max_slow_replies": -1}, ValueError),
        ({"max_leaving": 1 << 64}, OverflowError),
        ({"address_limits": print}, TypeError),
    ],
)
def test_account_refuses_wrong_arguments(changes: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Account(**({"capacity": 16} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"request_timeout": "3 s"}, {"terminator_grace": None}, {"linger": 1.0}])
def test_add_timeouts_refuses_wrong_arguments(wrong: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        ConnectionTable(**SETTINGS).add_timeouts(**(TIMES | wrong))  # type: ignore[arg-type]


def test_acceptor_without_a_connection_table_is_an_error() -> None:
    with pytest.raises(TypeError):
        acceptor(None)  # type: ignore[arg-type]


def test_connection_table_refuses_listener_1025() -> None:
    connection_table = ConnectionTable(**SETTINGS)
    shared = block()
    for _ in range(1024):
        acceptor(connection_table, block=shared)
    with pytest.raises(ValueError, match="1024 listeners"):
        acceptor(connection_table, block=shared)


def test_acceptor_keeps_totals_and_zeroes_gauges() -> None:
    shared = SharedCounters(1, 1)
    words = shared.memory(0, 0).cast("Q")
    for index in range(len(words)):
        words[index] = index + 1
    before = {name: shared.block(0, 0).all(name) for name in LAYOUT}
    acceptor(ConnectionTable(**SETTINGS), block=shared.memory(0, 0))
    after = {name: shared.block(0, 0).all(name) for name in LAYOUT}
    assert after == before | {name: [0] for name in GAUGES}


# ------------------------------------------------------------------------------------------------------------- hooks


class Mishap(Exception):
    pass


@pytest.mark.parametrize("kind", [Mishap, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_slow_reply_hook_that_raises_closes_only_its_connection(start: Callable[..., Loop], kind: type) -> None:
    def hook(fd: int, listener: int) -> None:
        raise kind

    loop = start(LARGE, on_slow_reply=hook)
    with loop.connect(2048) as client:
        loop.send(client, REQUEST)
        assert loop.settle() == {"capacity": 1}
        assert [type(error) for error in loop.errors] == [kind]


@pytest.mark.parametrize("accepted_first", [True, False])
def test_slow_reply_hook_that_closes_and_raises_is_counted_once(
    start: Callable[..., Loop], accepted_first: bool
) -> None:
    """Neither ConnectionTable.ready nor Acceptor.ready raises, and the connection is counted once."""

    def hook(fd: int, listener: int) -> None:
        loop.connection_table.close_as(fd, "shutdown")
        raise Mishap

    loop = start(LARGE, on_slow_reply=hook)
    with connect(loop.address, receive_buffer=2048) as client:
        if accepted_first:
            loop.until(lambda: loop.counters["accepted"])
        deliver(client, REQUEST)
        loop.until(lambda: loop.errors)
        assert loop.settle() == {"shutdown": 1}
        assert [type(error) for error in loop.errors] == [Mishap]


def test_error_hook_that_raises_is_ignored(start: Callable[..., Loop]) -> None:
    def hook(error: object) -> None:
        raise Mishap

    loop = start(LARGE, on_slow_reply=hook, on_error=hook)
    with loop.connect(2048) as client:
        loop.send(client, REQUEST)
        assert loop.settle() == {"capacity": 1}


@pytest.mark.parametrize("hook_raises", [False, True])
def test_accept_error_is_reported_and_never_raised(hook_raises: bool) -> None:
    reported: list[int] = []
    errors: list[BaseException] = []

    def hook(error: int) -> None:
        reported.append(error)
        if hook_raises:
            raise Mishap

    counters = SharedCounters(1, 1)
    connection_table = ConnectionTable(**(SETTINGS | {"on_error": errors.append}))
    door = acceptor(connection_table, -1, block=counters.memory(0, 0), on_exhausted=hook)
    assert door.ready() == 0
    assert reported == [errno.EBADF]
    assert [type(error) for error in errors] == [Mishap] * hook_raises
    assert counters.block(0, 0)["accept_errors"] == 1


# ------------------------------------------------------------------------------------------------------------ numbers


def test_acceptor_ready_accepts_at_most_a_burst(start: Callable[..., Loop]) -> None:
    loop = start()
    clients = [socket.create_connection(loop.address) for _ in range(2 * BURST + 5)]
    for client in clients:
        deliver(client, REQUEST)
    assert [loop.acceptor.ready() for _ in range(4)] == [BURST, BURST, 5, 0]
    assert loop.settle() == {"reply": len(clients)}
    for client in clients:
        assert until_end(client) == (REPLY, "fin")
        client.close()


def test_ready_handles_a_limited_number_and_stays_readable(start: Callable[..., Loop]) -> None:
    loop = start(request_timeout=30)
    clients = [socket.create_connection(loop.address) for _ in range(DISPATCH + BURST + 5)]
    loop.until(lambda: loop.counters["parked"] == len(clients))
    for client in clients:
        deliver(client, REQUEST)
    answered = []
    while sum(answered) < len(clients):  # one of them lingers, to see whether its client acknowledges the reply
        loop.until(lambda: loop.counters.replies > sum(answered))
        answered.append(loop.counters.replies - sum(answered))
    assert max(answered) <= DISPATCH
    assert loop.settle() == {"reply": len(clients)}
    for client in clients:
        client.close()


def test_descriptor_over_capacity_is_refused_at_once(start: Callable[..., Loop]) -> None:
    loop = start(capacity=3)
    with loop.connect() as client:
        assert until_end(client) == (b"", "fin")
        assert loop.settle() == {"capacity": 1}


def test_deadlines_keep_up_with_accepting_on_several_listeners(start: Callable[..., Loop]) -> None:
    """Each round accepts a burst on each of four listeners; overdue connections must not pile up."""
    loop = start(request_timeout=0.001, linger_timeout=0.001)
    shared = SharedCounters(1, 3)
    with contextlib.ExitStack() as stack:
        addresses, doors = [loop.address], [loop.acceptor]
        for number in range(3):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
            sock.setblocking(False)
            addresses.append(sock.getsockname())
            doors.append(acceptor(loop.connection_table, sock.fileno(), block=shared.memory(0, number), timeouts=0))
        for _ in range(6):
            clients = [socket.create_connection(address) for address in addresses for _ in range(BURST)]
            taken = sum(door.ready() for door in doors)
            assert taken == len(clients)
            select.select([loop.connection_table.fileno()], [], [], 4)  # the deadline of the first of them
            deadline = time.monotonic() + 0.02
            while time.monotonic() < deadline:
                pass
            loop.connection_table.ready()
            assert loop.connection_table.open == 0
            for client in clients:
                client.close()


def test_two_listeners_are_counted_separately(start: Callable[..., Loop]) -> None:
    """Two acceptors of one ConnectionTable have their own reply and counters."""
    loop = start()
    shared = SharedCounters(1, 1)
    with socket.create_server(("127.0.0.1", 0)) as second:
        second.setblocking(False)
        door = acceptor(
            loop.connection_table, second.fileno(), reply=PolicyReply(b"second\0"), block=shared.memory(0, 0)
        )
        with loop.connect() as one, socket.create_connection(second.getsockname()) as two:
            loop.until(door.ready)
            assert loop.connection_table.open == 2
            loop.send(one, REQUEST)
            loop.send(two, REQUEST)
            assert loop.settle() == {"reply": 1}
            assert (shared.block(0, 0).replies, shared.block(0, 0)["open"]) == (1, 0)
            assert until_end(two) == (b"second\0", "fin")


def test_close_all_counts_shutdown_where_no_reply_was_sent(start: Callable[..., Loop]) -> None:
    loop = start()
    with loop.connect(), loop.connect() as part, loop.connect() as bare, loop.connect() as answered:
        loop.send(part, REQUEST[:5])
        loop.send(bare, REQUEST[:22])
        loop.send(answered, REQUEST + b"x")
        assert loop.connection_table.close_all() == 4
        assert loop.settle() == {"shutdown": 3, "reply": 1}
        assert loop.connection_table.close_all() == 0


def test_two_thousand_silent_connections_all_time_out(start: Callable[..., Loop], many_files: int) -> None:
    count = 2000
    if many_files < 2 * count + 200:
        pytest.skip(f"needs {2 * count + 200} open files")
    loop = start()
    clients = []
    for _ in range(count):
        clients.append(socket.create_connection(loop.address))
        loop.turn()
    assert loop.settle() == {"timeout": count}
    for client in clients:
        assert client.recv(1) == b""
        client.close()


def test_layout_covers_the_counter_block_without_gaps() -> None:
    assert LAYOUT["refused"][1] == len(REASONS)
    ends = [offset + 8 * words for offset, words in LAYOUT.values()]
    starts = [offset for offset, _ in LAYOUT.values()]
    assert starts == [0, *ends[:-1]]  # no gap and no overlap
    assert ends[-1] <= BLOCK_SIZE
    assert BLOCK_SIZE % 64 == 0


def test_check_with_a_wrong_gauge_raises(start: Callable[..., Loop]) -> None:
    """The gauges are the only part of what is checked that a test can change."""
    loop = start()
    client = loop.connect()
    assert loop.connection_table.check() == 1
    words = loop.counters._words
    at = LAYOUT["open"][0] // 8
    words[at] = 2
    with pytest.raises(AssertionError, match="the gauges differ from the records"):
        loop.connection_table.check()
    words[at] = 1
    assert loop.connection_table.check() == 1
    client.close()
    assert loop.settle() == {"reset": 1}
