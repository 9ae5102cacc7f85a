"""TLS in the fast path, turn by turn: how many steps of handshakes a wake-up takes, whose turn it is, what it costs.

What clients get is in tests/worker/test_tls_*.py.
"""

import itertools
import socket
import ssl
import time
from collections.abc import Callable

import pytest

pytest.importorskip("flashpol._tls", reason="built without OpenSSL")

from flashpol.config import ConnectionLimits
from flashpol.counters.shared import SharedAddressLimits
from testkit.clients import BARE, REQUEST, connect, deliver
from testkit.fastpath_loop import Loop
from testkit.serving import LARGE, REPLY
from testkit.tls import ALERT, APPLICATION_DATA, TlsClient, hello, only, record
from testkit.tls_serving import Tls, handshakes

pytestmark = pytest.mark.usefixtures("no_leaked_files")

Start = Callable[..., Loop]
STEPS = 4  # of handshakes in one wake-up
PATIENT = {"request_timeout": 30.0, "tls_handshake_timeout": 30.0, "first_byte_timeout": 30.0}
V13 = only(ssl.TLSVersion.TLSv1_3)


@pytest.fixture
def secure(start: Start) -> Start:
    def make(**settings: object) -> Loop:
        return start(codec=Tls().context(), **(PATIENT | settings))

    return make


def greeted(loop: Loop, source: str = "127.0.0.1") -> TlsClient:
    """A client whose whole hello has arrived, but was not read."""
    client = TlsClient(connect(loop.address, source=source), V13)
    deliver(client.sock, client.hello())
    return client


def drive(loop: Loop, client: TlsClient) -> TlsClient:
    """Turn until the handshake is complete on both sides."""
    client.sock.setblocking(False)
    completed = sum(loop.counters.all("handshakes"))

    def step() -> bool:
        try:
            client.give(client.sock.recv(1 << 16))
        except BlockingIOError:
            return False
        done = client.step()
        client.flush()
        return done

    loop.until(step)
    loop.until(lambda: sum(loop.counters.all("handshakes")) > completed)
    client.sock.settimeout(20)
    return client


def accepted(loop: Loop, count: int) -> None:
    loop.until(lambda: loop.counters["accepted"] == count)


def read(loop: Loop, client: TlsClient) -> bytes:
    """What it receives until its end."""
    client.sock.setblocking(False)
    received = bytearray()

    def ended() -> bool:
        try:
            while wire := client.sock.recv(1 << 16):
                client.give(wire)
                received.extend(client.decrypt())
        except BlockingIOError:
            return False
        return True

    loop.until(ended)
    assert client.notified
    return bytes(received)


def test_request_inside_tls_gets_the_reply(secure: Start) -> None:
    loop = secure()
    client = drive(loop, greeted(loop))
    assert (loop.counters["tls"], loop.counters["handshaking"]) == (1, 1)
    client.send(REQUEST)
    assert read(loop, client) == REPLY
    assert loop.settle() == {"reply": 1}
    client.sock.close()


def test_access_log_says_that_a_client_came_with_tls(secure: Start) -> None:
    logged: list[tuple[str, bool]] = []
    loop = secure(on_access=lambda *fields: logged.append((fields[3], fields[-1])), access_log=1.0)
    with greeted(loop).sock, connect(loop.address, b"x"):
        loop.until(lambda: len(logged) == 1)
    with drive(loop, greeted(loop)) as client:
        client.send(REQUEST)
        assert read(loop, client) == REPLY
    loop.until(lambda: len(logged) == 3)
    assert sorted(logged) == [("other", False), ("reply", True), ("reset", True)]


def test_steps_of_many_handshakes_are_spread_over_wake_ups(secure: Start) -> None:
    loop = secure()
    clients = [greeted(loop) for _ in range(20)]
    accepted(loop, 20)
    begun = [loop.counters["handshaking"]]
    while begun[-1] < 20:
        assert loop.turn(1), "a handshake waits although its bytes are there"
        begun.append(loop.counters["handshaking"])
    assert all(after - before <= STEPS for before, after in itertools.pairwise(begun)), begun
    for client in clients:
        client.sock.close()
    assert loop.settle() == {"reset": 20}


def test_policy_request_among_many_hellos_is_replied_to_at_its_accept(secure: Start) -> None:
    loop = secure()
    clients = [greeted(loop) for _ in range(50)]
    with connect(loop.address, REQUEST) as plain:
        accepted(loop, 51)
        assert plain.recv(1000) == REPLY
        assert loop.counters["handshaking"] <= 2 * STEPS
    for client in clients:
        client.sock.close()
    assert loop.settle() == {"reply": 1, "reset": 50}


def test_handshake_that_is_overdue_is_dropped_before_its_turn(secure: Start) -> None:
    loop = secure(tls_handshake_timeout=0.05)
    clients = [greeted(loop) for _ in range(20)]
    loop.acceptor.ready()  # all are accepted and queued, and none has had its turn
    assert (loop.counters["tls"], loop.counters["handshaking"]) == (20, 0)
    time.sleep(0.1)
    assert loop.settle() == {"timeout": 20}
    assert handshakes(loop.counters) == {"timeout": 20}
    for client in clients:
        assert client.sock.recv(1 << 16) == b"", "an overdue handshake has had its turn"
        client.sock.close()


def test_half_a_hello_takes_no_place_and_no_turn(secure: Start) -> None:
    loop = secure(max_handshakes=1)
    first = hello()
    halves = [connect(loop.address, first[: len(first) // 2]) for _ in range(30)]
    accepted(loop, 30)
    loop.drain()
    assert (loop.counters["tls"], loop.counters["handshaking"]) == (30, 0)
    client = drive(loop, greeted(loop))
    client.send(REQUEST)
    assert read(loop, client) == REPLY
    for each in (client.sock, *halves):
        each.close()
    assert loop.settle() == {"reply": 1, "reset": 30}


def test_client_that_leaves_before_its_turn_costs_no_step(secure: Start) -> None:
    loop = secure()
    clients = [greeted(loop) for _ in range(30)]
    for client in clients:
        client.sock.shutdown(socket.SHUT_WR)
    accepted(loop, 30)
    assert loop.settle() == {"reset": 30}
    assert handshakes(loop.counters) == {"closed": 30}
    for client in clients:
        assert client.sock.recv(1) == b"", "the server has replied to its hello"
        client.sock.close()


def test_newcomer_of_a_light_address_has_its_turn_before_a_flood(secure: Start) -> None:
    address_limits = SharedAddressLimits(1, ConnectionLimits(max_address_connections=0)).of(0)
    loop = secure(address_limits=address_limits)
    flood = [greeted(loop, "127.0.0.2") for _ in range(100)]
    accepted(loop, 100)
    alone = greeted(loop, "127.0.0.3")
    accepted(loop, 101)
    before = loop.counters["handshaking"]
    alone.sock.setblocking(False)

    def replied_to() -> bool:
        try:
            return bool(alone.sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return False

    loop.until(replied_to)
    assert loop.counters["handshaking"] - before <= 3 * STEPS, "the flood went first"
    for client in (*flood, alone):
        client.sock.close()
    assert loop.settle() == {"reset": 101}


def test_max_handshakes_of_many_addresses_makes_newcomers_wait_until_one_ends(secure: Start) -> None:
    address_limits = SharedAddressLimits(1, ConnectionLimits(max_address_connections=0)).of(0)
    loop = secure(max_handshakes=3, address_limits=address_limits)
    clients = [greeted(loop, f"127.0.0.{number}") for number in range(2, 7)]
    accepted(loop, 5)
    loop.until(lambda: loop.counters["handshaking"] == 3)
    loop.drain()
    assert loop.counters["handshaking"] == 3
    begun = [client for client in clients if is_readable(client.sock)]
    assert len(begun) == 3
    begun[0].sock.close()
    loop.until(lambda: sum(is_readable(client.sock) for client in clients if client not in begun) == 1)
    for client in clients:
        client.sock.close()
    outcomes = loop.settle()
    assert set(outcomes) <= {"reset", "max_handshakes"}
    assert sum(outcomes.values()) == 5


def is_readable(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_heaviest_address_gives_way_at_max_handshakes(secure: Start) -> None:
    address_limits = SharedAddressLimits(1, ConnectionLimits(max_address_connections=0)).of(0)
    loop = secure(max_handshakes=4, address_limits=address_limits)
    flood = [greeted(loop, "127.0.0.2") for _ in range(4)]
    loop.until(lambda: loop.counters["handshaking"] == 4)
    client = drive(loop, greeted(loop, "127.0.0.3"))
    assert loop.counters.all("refused") != [0] * len(loop.counters.all("refused"))
    client.send(REQUEST)
    assert read(loop, client) == REPLY
    for each in (*flood, client):
        each.sock.close()
    assert loop.settle() == {"reply": 1, "max_handshakes": 1, "reset": 3}
    assert handshakes(loop.counters) == {"TLSv1.3": 1, "capacity": 1, "closed": 3}


def test_place_of_a_handshake_is_given_back_with_the_reply_or_the_session(secure: Start) -> None:
    loop = secure(shared=True)
    asking, playing = (drive(loop, greeted(loop)) for _ in range(2))
    assert loop.counters["handshaking"] == 2
    asking.send(REQUEST)
    assert read(loop, asking) == REPLY
    playing.send(b"hello")
    loop.until(lambda: loop.sessions)
    assert [data for _, data in loop.sessions] == [b"hello"]
    assert (loop.counters["tls"], loop.counters["handshaking"]) == (1, 0)
    loop.connection_table.close_as(loop.sessions.pop()[0], "upstream")
    for client in (asking, playing):
        client.sock.close()
    assert loop.settle() == {"reply": 1, "upstream": 1}


def slow_reader(loop: Loop) -> tuple[TlsClient, int]:
    """A client of a slow reply, and its descriptor in the server."""
    client = TlsClient(connect(loop.address, receive_buffer=4096), V13)
    deliver(client.sock, client.hello())
    drive(loop, client)
    client.send(REQUEST)
    loop.until(lambda: loop.slow_replies)
    return client, loop.slow_replies.pop()


def send_rest(loop: Loop, client: TlsClient, fd: int) -> bytes:
    """What the client receives while the slow reply is sent to its end."""
    client.sock.setblocking(False)
    received, done = bytearray(), False
    while not client.notified:
        try:
            client.give(client.sock.recv(1 << 16))
            received += client.decrypt()
        except BlockingIOError:
            pass
        done = done or loop.connection_table.send_more(fd)
    assert done
    return bytes(received)


def test_slow_reply_inside_tls_is_sent_in_parts(secure: Start) -> None:
    loop = secure(reply=LARGE)
    client, fd = slow_reader(loop)
    assert send_rest(loop, client, fd) == LARGE
    client.sock.close()
    assert loop.settle() == {"reply": 1}


def test_slow_reply_gives_its_place_of_a_handshake_back(secure: Start) -> None:
    """At the limit the next handshake would close it under the greenlet that sends it."""
    loop = secure(reply=LARGE, max_handshakes=1)
    client, fd = slow_reader(loop)
    time.sleep(0.3)  # longer than a handshake may wait for its client at the limit
    other = drive(loop, greeted(loop))
    assert send_rest(loop, client, fd) == LARGE
    for each in (client, other):
        each.sock.close()
    assert loop.settle() == {"reply": 1, "reset": 1}


def test_request_that_lacks_only_its_terminator_gets_the_reply_when_it_gives_way(secure: Start) -> None:
    """As in plain text."""
    loop = secure(max_handshakes=1, terminator_grace=30.0)
    client = drive(loop, greeted(loop))
    client.send(BARE)
    loop.drain()
    time.sleep(0.3)  # longer than a handshake may wait for its client at the limit
    other = drive(loop, greeted(loop))
    assert read(loop, client) == REPLY
    for each in (client, other):
        each.sock.close()
    assert loop.settle() == {"reply": 1, "reset": 1}


def test_close_all_closes_connections_with_tls_in_every_state(secure: Start) -> None:
    loop = secure(reply=LARGE, shared=True)
    hungry = drive(loop, greeted(loop))
    hungry.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    asking, playing, waiting = (drive(loop, greeted(loop)) for _ in range(3))
    half = connect(loop.address, hello()[:50])
    waiting_for_us = greeted(loop)
    accepted(loop, 6)
    loop.drain()
    hungry.send(REQUEST)
    loop.until(lambda: loop.slow_replies)
    playing.send(b"hello")
    loop.until(lambda: loop.sessions)
    asking.send(REQUEST[:5])
    loop.drain()
    loop.acceptor.ready()
    assert loop.connection_table.close_all() == 6
    loop.sessions.clear()
    loop.slow_replies.clear()
    for each in (hungry.sock, asking.sock, playing.sock, waiting.sock, waiting_for_us.sock, half):
        each.close()
    assert sum(loop.settle().values()) == 6


def test_tls_only_of_an_acceptor_refuses_plain_text(start: Start) -> None:
    loop = start(codec=Tls().context(), tls_only=True, **PATIENT)
    with connect(loop.address, REQUEST) as client:
        accepted(loop, 1)
        assert client.recv(1) == b""
    assert loop.settle() == {"tls_only": 1}


def test_bytes_before_a_request_are_read_in_small_parts(secure: Start) -> None:
    """Small records cost much for each byte, and many clients can send them at a time."""
    loop = secure(shared=True)
    client = drive(loop, greeted(loop))
    deliver(client.sock, b"".join(client.encrypt(b"x") for _ in range(600)))
    loop.until(lambda: bool(loop.sessions))
    _, data = loop.sessions[0]
    assert 0 < len(data) <= 4096 // 22, f"{len(data)} records were decoded at once"
    client.sock.close()


def test_close_notify_instead_of_the_last_flight_is_a_reset(secure: Start) -> None:
    loop = secure()
    client = greeted(loop)
    loop.until(lambda: loop.counters["handshaking"] == 1)
    deliver(client.sock, record(ALERT, b"\1\0", 0x0303))
    assert loop.settle() == {"reset": 1}
    assert handshakes(loop.counters) == {"closed": 1}
    client.sock.close()


def test_protocol_error_before_the_request_has_its_reason(secure: Start) -> None:
    """Each connection that is refused for `tls_handshake` is counted among the failures too."""
    loop = secure()
    client = drive(loop, greeted(loop))
    loop.connection_table.check()
    deliver(client.sock, record(APPLICATION_DATA, bytes(100), 0x0303))
    assert loop.settle() == {"tls_handshake": 1}
    assert handshakes(loop.counters) == {"TLSv1.3": 1, "malformed": 1}
    client.sock.close()
