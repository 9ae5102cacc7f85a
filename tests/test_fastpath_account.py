"""The account of places: which connection gives way, and the shares of those that do not."""

import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashpol._fastpath import Acceptor, PolicyReply
from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits, SharedCounters
from testkit.accounts import outcomes
from testkit.clients import BARE, REQUEST, connect, deliver, reset, until_end
from testkit.fastpath_loop import LINGER_BYTES, Loop
from testkit.serving import LARGE, REPLY

pytestmark = pytest.mark.usefixtures("no_leaked_files")

Start = Callable[..., Loop]
SLOW = {"request_timeout": 30, "terminator_grace": 30, "linger_timeout": 30}
# More than a client with a small window takes, less than the kernel keeps for it.
UNREAD = REPLY[:-1] + b" " * 30_000 + b"\0"


def limited(**limits: int) -> dict[str, object]:
    found = SharedAddressLimits(1, ConnectionLimits(**({"max_address_connections": 0} | limits))).of(0)
    return {"address_limits": found} | SLOW


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


# ------------------------------------------------------------------------------------------------------ the heaviest


def test_heaviest_address_gives_way_although_another_has_waited_longer(start: Start) -> None:
    loop = start(**limited(max_connections=10))
    late = [loop.connect(source="127.0.0.3") for _ in range(2)]
    flood = [loop.connect(source="127.0.0.2") for _ in range(8)]
    for _ in range(50):
        flood.append(loop.connect(source="127.0.0.2"))
        with loop.connect(source="127.0.0.4") as client:
            loop.send(client, REQUEST)
            assert until_end(client) == (REPLY, "fin")
    for client in late:
        loop.send(client, REQUEST)
        assert until_end(client) == (REPLY, "fin")
    assert [is_open(client) for client in flood] == [False] * 51 + [True] * 7
    for client in (*late, *flood):
        client.close()
    assert loop.settle() == {"reply": 52, "max_connections": 51, "reset": 7}


def test_among_addresses_with_one_connection_the_longest_waiting_gives_way(start: Start) -> None:
    loop = start(**limited(max_connections=5))
    clients = [loop.connect(source=f"127.0.1.{number}") for number in range(1, 10)]
    assert [is_open(client) for client in clients] == [False] * 4 + [True] * 5
    for client in clients:
        client.close()
    assert loop.settle() == {"max_connections": 4, "reset": 5}


def test_of_one_address_the_longest_waiting_gives_way(start: Start) -> None:
    """Whatever it has sent; one that lacks only the terminator gets its reply, and lingers."""
    loop = start(**limited(max_connections=6))
    sent = [BARE[:5], BARE, b"", BARE[:5], BARE, b""]
    clients = [loop.connect() for _ in sent]
    for client, data in zip(clients, sent, strict=True):
        if data:
            loop.send(client, data)
    newcomers = [loop.connect(source="127.0.0.2") for _ in range(3)]
    assert until_end(clients[1]) == (REPLY, "fin")
    assert [is_open(client) for client in clients] == [False, False, False, False, True, True]
    assert loop.counters["open"] == 6
    loop.send(clients[4], b"\0")
    assert until_end(clients[4]) == (REPLY, "fin")
    for client in (*clients, *newcomers):
        client.close()
    assert loop.settle() == {"reply": 2, "max_connections": 3, "reset": 4}


def test_lingering_connections_give_way_as_long_as_they_linger(start: Start) -> None:
    loop = start(**limited(max_connections=4))
    clients = [loop.connect() for _ in range(4)]
    for client in clients[:2]:
        loop.send(client, REQUEST + b"x")
        assert until_end(client) == (REPLY, "fin")
    others = [loop.connect(source="127.0.0.2") for _ in range(2)]
    assert [is_open(client) for client in clients[2:]] == [False, False]  # they waited before the others lingered
    others += [loop.connect(source="127.0.0.3") for _ in range(2)]
    assert loop.counters["open"] == 4
    for client in (*clients, *others):
        client.close()
    assert loop.settle() == {"reply": 2, "max_connections": 3, "reset": 3}  # two, and then one of the next heaviest


def test_request_that_has_arrived_meanwhile_gets_its_reply(start: Start) -> None:
    loop = start(**limited(max_connections=2))
    first, second = loop.connect(), loop.connect()
    deliver(first, REQUEST)  # not handled yet
    with loop.connect() as third:
        assert until_end(first) == (REPLY, "fin")
        for client in (second, third):
            loop.send(client, REQUEST)
            assert until_end(client) == (REPLY, "fin")
    first.close()
    second.close()
    assert loop.settle() == {"reply": 3}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["connect", "connect", "connect", "silent", "part", "bare", "request", "other", "close", "reset"]
        ),
        st.integers(0, 30),
    ),
    min_size=5,
    max_size=60,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=STEPS,
    limits=st.sampled_from([{"max_connections": 6}, {"max_address_connections": 3}, {"max_worker_connections": 9}]),
)
def test_account_with_any_clients_agrees_with_the_records(
    start: Start, steps: list[tuple[str, int]], limits: dict
) -> None:
    """`check` compares lines, weights, shares and the address table with the records after each step."""
    loop = start(**limited(**limits), shared=True, max_sessions=5, first_byte_timeout=30)
    data = {"part": BARE[:7], "bare": BARE, "request": REQUEST, "other": b"hello"}
    clients: list[socket.socket] = []
    for step, number in steps:
        if step == "connect" or not clients:
            clients.append(loop.connect(source=f"127.0.2.{number % 5 + 1}"))
        elif step == "close":
            clients.pop(number % len(clients)).close()
        elif step == "reset":
            reset(clients.pop(number % len(clients)))
        elif step in data:
            client = clients[number % len(clients)]
            try:
                client.send(data[step])
            except OSError:  # it was evicted
                clients.remove(client)
                client.close()
        loop.drain()
        assert loop.connection_table.check() == loop.counters["open"]
        if limit := limits.get("max_connections") or limits.get("max_worker_connections"):
            assert loop.counters["open"] <= limit
    for client in clients:
        client.close()
    loop.drain()
    for fd, _ in loop.sessions:
        loop.connection_table.close_relayed(fd, 0)
    loop.sessions.clear()
    loop.settle()


# ------------------------------------------------------------------------------------------------------------ shares


class SecondListener:
    """One more listener of the loop's table."""

    def __init__(self, loop: Loop, *, shared: bool, upgrades: bool = False) -> None:
        counters = SharedCounters(1, 1)
        self.counters = counters.block(0, 0)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.socket.setblocking(False)
        self.acceptor = Acceptor(
            loop.connection_table, self.socket.fileno(), PolicyReply(LARGE), counters.memory(0, 0), timeouts=0,
            linger_bytes=LINGER_BYTES, reply_timeout=10, on_exhausted=print, shared=shared,
            http=upgrades, upgrades=upgrades,
        )  # fmt: skip

    def connect(self, data: bytes) -> socket.socket:
        client = connect(self.socket.getsockname(), receive_buffer=2048)
        deliver(client, data)
        assert self.acceptor.ready() == 1
        return client


@pytest.mark.parametrize(("shared", "data", "gauge"), [(True, b"hello", "sessions"), (False, REQUEST, "slow_replies")])
def test_listener_cannot_take_the_reserve_of_another(start: Start, shared: bool, data: bytes, gauge: str) -> None:
    """Of eight places each of two listeners has two for itself, and four are common."""
    loop = start(LARGE, shared=shared, **{f"max_{gauge}": 8})
    other = SecondListener(loop, shared=shared)
    clients = [loop.connect(2048) for _ in range(10)]
    for client in clients:
        loop.send(client, data)
    assert (loop.counters[gauge], outcomes(loop.counters)) == (6, {f"max_{gauge}": 4})
    clients += [other.connect(data) for _ in range(3)]
    assert (other.counters[gauge], outcomes(other.counters)) == (2, {f"max_{gauge}": 1})
    assert loop.connection_table.check() == 8
    loop.connection_table.close_all()
    for client in clients:
        client.close()
    other.socket.close()


def test_shared_port_leaves_a_listener_with_upgrades_its_reserve(start: Start) -> None:
    """Its WebSockets are sessions too: of eight places it has two for itself."""
    loop = start(shared=True, max_sessions=8)
    other = SecondListener(loop, shared=False, upgrades=True)
    clients = [loop.connect() for _ in range(10)]
    for client in clients:
        loop.send(client, b"hello")
        client.close()
    assert (loop.counters["sessions"], outcomes(loop.counters)) == (6, {"max_sessions": 4})
    loop.connection_table.close_all()
    other.socket.close()


def test_single_listener_takes_all_places_of_a_share(start: Start) -> None:
    loop = start(shared=True, max_sessions=8)
    clients = [loop.connect() for _ in range(9)]
    for client in clients:
        loop.send(client, b"hello")
        client.close()
    assert (loop.counters["sessions"], outcomes(loop.counters)) == (8, {"max_sessions": 1})


def test_address_has_at_most_four_times_the_sessions_that_are_free(start: Start) -> None:
    """Others find places although one address takes all that it can get."""
    loop = start(**limited(), shared=True, max_sessions=50)
    clients = [loop.connect(source="127.0.0.1") for _ in range(60)]
    for client in clients:
        loop.send(client, b"hello")
    assert (loop.counters["sessions"], outcomes(loop.counters)) == (41, {"max_address_sessions": 19})
    for number in range(9):
        clients.append(loop.connect(source=f"127.0.0.{number + 2}"))
        loop.send(clients[-1], b"hello")
    assert loop.counters["sessions"] == 50
    for client in clients:
        client.close()


# ----------------------------------------------------------------------------------------------- replies not read


def test_reply_that_is_not_acknowledged_keeps_its_place_until_it_is_reset(start: Start) -> None:
    loop = start(UNREAD, linger_timeout=0.05, reply_timeout=0.5)
    with loop.connect(2048) as client:
        loop.send(client, REQUEST + b"x")
        loop.until(lambda: not loop.connection_table.open)
        assert until_end(client)[1] == "rst"
    assert loop.settle() == {"reply": 1}


def test_reply_that_is_read_late_is_complete(start: Start) -> None:
    loop = start(UNREAD, linger_timeout=0.05, reply_timeout=30)
    with loop.connect(2048) as client:
        loop.send(client, REQUEST + b"x")
        for _ in range(5):
            loop.turn(0.05)
        assert loop.connection_table.open == 1
        assert until_end(client) == (UNREAD, "fin")
        loop.until(lambda: not loop.connection_table.open)
    assert loop.settle() == {"reply": 1}


def test_address_that_did_not_acknowledge_keeps_its_places_and_others_do_not(start: Start) -> None:
    loop = start(UNREAD, **(limited() | {"linger_timeout": 0.05, "reply_timeout": 0.3}))
    with loop.connect(2048, source="127.0.0.2") as unread:
        loop.send(unread, REQUEST + b"x")
        loop.until(lambda: not loop.connection_table.open)
    for source, kept in (("127.0.0.2", 1), ("127.0.0.3", 0)):
        with loop.connect(2048, source=source) as client:
            loop.send(client, REQUEST)
            assert loop.connection_table.open == kept
            loop.until(lambda: not loop.connection_table.open)
    assert loop.settle() == {"reply": 3}


def test_one_reply_of_128_is_watched(start: Start) -> None:
    loop = start(UNREAD, linger_timeout=0.05, reply_timeout=30)
    clients = [loop.connect(2048) for _ in range(256)]
    for client in clients:
        loop.send(client, REQUEST)
    assert loop.connection_table.open == 2
    for client in clients:
        client.close()
    loop.settle()


def test_busy_address_that_does_not_acknowledge_keeps_its_places_at_once(start: Start) -> None:
    """After 12 in a second one of 8 is watched, and when three linger all are."""
    loop = start(UNREAD, **limited())
    clients = [loop.connect(2048, source="127.0.0.2") for _ in range(100)]
    for client in clients:
        loop.send(client, REQUEST)
    assert loop.connection_table.open >= 50
    others = [loop.connect(2048, source=f"127.0.1.{number}") for number in range(20)]
    before = loop.connection_table.open
    for client in others:
        loop.send(client, REQUEST)
    assert loop.connection_table.open - before <= len(others) // 10
    for client in (*clients, *others):
        client.close()
    loop.drain()
    loop.connection_table.close_all()


def test_replies_that_are_not_acknowledged_count_for_their_address(start: Start) -> None:
    """At its limit the address is refused, until they are reset; others are served."""
    loop = start(
        UNREAD,
        **(limited(max_address_connections=10) | {"linger_timeout": 0.5, "reply_timeout": 1, "request_timeout": 1}),
    )
    clients = []
    for _ in range(100):
        clients.append(loop.connect(2048))
        if len(clients) < 17 or loop.connection_table.open < 10:
            loop.send(clients[-1], REQUEST)
    assert loop.connection_table.open == 10
    assert outcomes(loop.counters)["max_address_connections"] > 20
    with loop.connect(2048, source="127.0.0.2") as other:
        loop.send(other, REQUEST)
        assert until_end(other) == (UNREAD, "fin")
    loop.until(lambda: not loop.connection_table.open)
    with loop.connect() as again:
        loop.send(again, REQUEST)
        assert until_end(again) == (UNREAD, "fin")
    for client in clients:
        client.close()
    loop.settle()


# ------------------------------------------------------------------------------------------------------- descriptors


def test_session_takes_its_second_descriptor_from_connections_that_wait(start: Start) -> None:
    """So sessions of one address open although connections of another hold all descriptors."""
    loop = start(**limited(), shared=True, first_byte_timeout=30, max_files=20)
    clients = [loop.connect(source="127.0.0.2") for _ in range(20)]
    for number in range(1, 9):
        clients.append(loop.connect(source="127.0.0.3"))
        loop.send(clients[-1], b"hello")
        assert len(loop.sessions) == number
        assert loop.connection_table.open + loop.connection_table.sessions <= 20
    for client in clients:
        client.close()


def test_session_without_a_second_descriptor_is_refused(start: Start) -> None:
    """Sessions whose upstream has not accepted them do not give way, so no descriptor becomes free."""
    loop = start(**limited(), shared=True, first_byte_timeout=30, max_files=5)
    clients = [loop.connect(source=f"127.0.0.{number}") for number in range(2, 7)]
    for client in clients[::2]:  # each of the first two costs another its place
        loop.send(client, b"hello")
    assert [is_open(client) for client in clients] == [True, False, True, False, False]
    assert len(loop.sessions) == 2
    assert outcomes(loop.counters) == {"capacity": 3}
    for client in clients:
        client.close()


# ------------------------------------------------------------------------------------------------- limits by address


def test_newcomer_is_admitted_when_the_waiting_connection_of_its_address_becomes_a_session(start: Start) -> None:
    """No client is refused below max_address_connections, which does not count sessions."""
    loop = start(**limited(max_address_connections=1), shared=True, first_byte_timeout=30)
    first = loop.connect()
    deliver(first, b"hello")  # not handled yet
    with loop.connect() as second:
        assert len(loop.sessions) == 1
        loop.send(second, REQUEST)
        assert until_end(second) == (REPLY, "fin")
    assert "max_address_connections" not in outcomes(loop.counters)
    first.close()


def test_newcomer_costs_no_waiting_connection_when_another_of_its_address_becomes_a_session(start: Start) -> None:
    loop = start(**limited(max_address_connections=2), shared=True, first_byte_timeout=30)
    first, second = loop.connect(), loop.connect()
    deliver(first, b"hello")
    with loop.connect():
        assert (len(loop.sessions), is_open(second)) == (1, True)
    first.close()
    second.close()


def test_sessions_of_one_address_above_what_a_slot_counts_are_not_tracked(start: Start) -> None:
    """A count of 16 bits would begin at 0 again, and the slot would go to another address."""
    shared = SharedAddressLimits(1, ConnectionLimits(max_address_connections=0))
    loop = start(address_limits=shared.of(0), **SLOW, shared=True, max_sessions=100_000, first_byte_timeout=30)
    clients = [loop.connect() for _ in range(2)]
    loop.send(clients[0], b"hello")
    memory = shared._mapping.memory.cast("H")
    (place,) = [i for i in range(len(memory) - 1) if (memory[i], memory[i + 1]) == (1, 1)]  # open, sessions
    memory[place + 1] = 0xFFFF
    loop.send(clients[1], b"hello")
    assert (memory[place], memory[place + 1]) == (0, 0xFFFF)
    assert loop.counters["untracked"] == 1
    for fd, _ in loop.sessions:
        loop.connection_table.close_relayed(fd, 0)
    assert (memory[place], memory[place + 1]) == (0, 0xFFFE)
    memory[place + 1] = 0
    for client in clients:
        client.close()


def test_sessions_and_slow_replies_together_leave_descriptors_for_policies(start: Start) -> None:
    """Of 40 descriptors they leave five, although each alone would fit."""
    loop = start(LARGE, **limited(), shared=True, max_files=40)
    clients = []
    for number in range(30):
        clients.append(loop.connect(2048, source=f"127.0.0.{number + 2}"))
        loop.send(clients[-1], (b"hello", REQUEST)[number % 2])
    used = 2 * loop.counters["sessions"] + loop.counters["slow_replies"]
    assert 33 <= used <= 35
    before = loop.counters["accepted"]
    for _ in range(10):
        clients.append(loop.connect(source="127.0.1.1"))
    assert loop.counters["accepted"] == before + 10
    assert loop.counters["parked"] >= 4
    for client in clients:
        client.close()
    loop.drain()
    loop.connection_table.close_all()
