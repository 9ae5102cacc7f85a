"""The pump with real sockets: bytes, ends and deadlines, and nothing left behind."""

import hashlib
import os
import random
import resource
import socket
import time
from contextlib import suppress

import greenlet
import pytest
from conftest import StartPump

from flashpol._pump import BLOCK_SIZE, ENDS, FAILURES, LAYOUT, Destination, Pump
from testkit.clients import reset, until_end
from testkit.pump_loop import TIMES, PumpLoop


def fill(loop: PumpLoop, sock: socket.socket) -> int:
    """Send until nothing more is taken; return how many bytes were."""
    sock.setblocking(False)
    sent = 0
    while True:
        try:
            sent += sock.send(bytes(1 << 16))
            quiet = 0
        except BlockingIOError:
            quiet = 0 if loop.turn(0.005) else quiet + 1
            if quiet == 10:
                sock.settimeout(4)
                return sent


def test_pump_sends_first_bytes_first_and_relays_both_ways(start_pump: StartPump) -> None:
    loop = start_pump()
    client, server = loop.pair(first=b"read before ")
    client.sendall(b"and after")
    assert loop.read(server, 21) == b"read before and after"
    server.sendall(b"answer")
    assert loop.read(client, 6) == b"answer"
    assert loop.counters.all("sent") == [21, 6]
    client.close()
    assert loop.end_of(server) == (b"", "fin")
    server.close()
    loop.until(lambda: loop.ended)
    assert loop.ended == [("client", 6)]


@pytest.mark.parametrize("first", [b"", b"hello"])
def test_pump_times_connecting(start_pump: StartPump, first: bytes) -> None:
    """The time is above 0 also on this host, where connecting is over at once."""
    loop = start_pump()
    before = time.monotonic_ns()
    client, server = loop.pair(first=first)
    loop.until(lambda: loop.counters["opened"])
    assert 0 < loop.counters["connect_ns"] <= time.monotonic_ns() - before
    client.close()
    server.close()


def test_pump_relays_an_application_that_speaks_first(start_pump: StartPump) -> None:
    loop = start_pump()
    client, server = loop.pair()
    server.sendall(b"220 hello")
    assert loop.read(client, 9) == b"220 hello"
    server.close()
    assert loop.end_of(client) == (b"", "fin")
    client.close()
    loop.until(lambda: loop.ended)
    assert loop.ended == [("upstream", 9)]


@pytest.mark.parametrize("first", [CLIENT := 0, UPSTREAM := 1], ids=["client", "upstream"])
def test_pump_passes_on_fin_and_keeps_the_other_direction(start_pump: StartPump, first: int) -> None:
    loop = start_pump()
    ends_ = loop.pair()
    closing, other = ends_[first], ends_[1 - first]
    closing.sendall(b"last words")
    closing.shutdown(socket.SHUT_WR)
    assert loop.end_of(other) == (b"last words", "fin")
    assert loop.pump.open == 1
    other.setblocking(True)
    for _ in range(3):
        other.sendall(b"still here")
        assert loop.read(closing, 10) == b"still here"
    other.close()
    assert loop.end_of(closing) == (b"", "fin")
    loop.until(lambda: loop.ended)
    assert loop.ended[0][0] == ENDS[first]
    closing.close()


@pytest.mark.parametrize("first", [0, 1], ids=["client", "upstream"])
def test_pump_passes_on_rst_after_the_bytes_before_it(start_pump: StartPump, first: int) -> None:
    loop = start_pump()
    ends_ = loop.pair()
    closing, other = ends_[first], ends_[1 - first]
    closing.sendall(b"last words")
    reset(closing)
    assert loop.end_of(other) == (b"last words", "rst")
    loop.until(lambda: loop.ended)
    assert loop.ended[0][0] == ["client_reset", "upstream_reset"][first]
    other.close()


@pytest.mark.parametrize("first", [0, 1], ids=["client", "upstream"])
def test_pump_passes_on_rst_after_fin(start_pump: StartPump, first: int) -> None:
    loop = start_pump()
    ends_ = loop.pair()
    closing, other = ends_[first], ends_[1 - first]
    closing.shutdown(socket.SHUT_WR)
    assert loop.end_of(other) == (b"", "fin")
    reset(other)
    assert loop.end_of(closing) == (b"", "rst")
    loop.until(lambda: loop.ended)
    assert loop.ended[0][0] == ["upstream_reset", "client_reset"][first]
    closing.close()


def test_pump_delivers_bytes_of_an_application_that_closed_with_unread_input(start_pump: StartPump) -> None:
    """Its kernel sends RST. A direct client reads the answer first, and so does a client of the relay."""
    loop = start_pump()
    client, server = loop.pair()
    client.sendall(b"unread")
    loop.drain()
    server.sendall(b"answer")
    server.close()
    client.send(b"more")  # which cannot be delivered
    assert loop.end_of(client) == (b"answer", "rst")
    loop.until(lambda: loop.ended)
    assert loop.ended == [("upstream_reset", 6)]
    client.close()


@pytest.mark.parametrize("buffers", [8, 0], ids=["held", "peeked"])
@pytest.mark.parametrize("first", [0, 1], ids=["to the application", "to the client"])
def test_pump_with_a_slow_reader_blocks_the_sender_and_loses_nothing(
    start_pump: StartPump, first: int, buffers: int
) -> None:
    loop = start_pump(buffers=buffers)
    ends_ = loop.pair(receive_buffer=1 << 16)  # with a tiny window each read would wait for an ACK that is delayed
    sender, reader = ends_[first], ends_[1 - first]
    pattern = random.Random(1).randbytes(1 << 16)
    sent, quiet = 0, 0
    sender.setblocking(False)
    while quiet < 10:
        try:
            sent += sender.send(pattern[sent % len(pattern) :])
            quiet = 0
        except BlockingIOError:
            quiet = 0 if loop.turn(0.005) else quiet + 1
    assert loop.pump.buffers_held <= buffers
    assert not loop.turn(0.02), "a blocked session takes no turn of the loop"
    # The other direction is not blocked.
    reader.sendall(b"by the way")
    assert loop.read(sender, 10) == b"by the way"
    sender.shutdown(socket.SHUT_WR)
    received, how = loop.end_of(reader)
    assert (len(received), how) == (sent, "fin")
    assert received == (pattern * (sent // len(pattern) + 1))[:sent]
    assert loop.pump.buffers_held == 0
    sender.close()
    reader.close()


@pytest.mark.parametrize("buffers", [8, 0], ids=["held", "peeked"])
def test_pump_passes_on_rst_of_a_slow_reader(start_pump: StartPump, buffers: int) -> None:
    loop = start_pump(buffers=buffers)
    client, server = loop.pair(receive_buffer=4096)
    assert fill(loop, server) > 0
    reset(client)
    assert loop.end_of(server) == (b"", "rst")
    loop.until(lambda: loop.ended)
    assert loop.ended[0][0] == "client_reset"
    server.close()


@pytest.mark.parametrize("buffers", [8, 0], ids=["held", "peeked"])
def test_pump_passes_on_rst_of_a_blocked_sender_after_its_bytes(start_pump: StartPump, buffers: int) -> None:
    """The RST is noticed when the reader reads on; the bytes before it are passed on first."""
    loop = start_pump(buffers=buffers)
    client, server = loop.pair(receive_buffer=1 << 16)
    sent = fill(loop, server)
    reset(server)
    received, how = loop.end_of(client)
    assert how == "rst"
    assert 0 < len(received) <= sent  # the bytes in its own kernel are lost, as without a relay
    client.close()


@pytest.mark.parametrize("buffers", [8, 0], ids=["held", "peeked"])
def test_pump_ends_a_cut_transfer_with_rst(start_pump: StartPump, buffers: int) -> None:
    loop = start_pump(idle_timeout=0.5, buffers=buffers)
    client, server = loop.pair(receive_buffer=4096)
    fill(loop, server)
    loop.until(lambda: loop.ended)
    assert loop.ended[0][0] == "idle"
    assert loop.end_of(client)[1] == "rst"
    client.close()
    server.close()


def test_run_session_to_a_closed_port_is_refused(start_pump: StartPump) -> None:
    loop = start_pump()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    for first in (b"", b"first"):
        client, inner = loop.client()
        loop.start(inner, Destination(address, loop.block), first)
        loop.until(lambda: loop.pump.open == 0)
        client.close()
    assert loop.ended == [("refused", 0)] * 2
    assert loop.outcomes == {"refused": 2}


def test_run_session_to_an_unroutable_address_is_unreachable(start_pump: StartPump) -> None:
    loop = start_pump()
    client, inner = loop.client()
    loop.start(inner, Destination(("255.255.255.255", 9), loop.block))
    assert loop.ended == [("unreachable", 0)]
    client.close()


def test_run_session_without_a_syn_ack_times_out(start_pump: StartPump) -> None:
    """A listening socket whose queue is full drops the SYN."""
    loop = start_pump(connect_timeout=0.1)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        fillers = []
        for _ in range(3):
            fillers.append(socket.socket())
            fillers[-1].setblocking(False)
            fillers[-1].connect_ex(full.getsockname())
        client, inner = loop.client()
        loop.start(inner, Destination(full.getsockname(), loop.block), b"first")
        loop.until(lambda: loop.ended)
        for sock in (*fillers, client):
            sock.close()
    assert loop.ended == [("timeout", 0)]


@pytest.mark.parametrize("address", ["::1", "127.0.0", "", "127.0.0.1:1"])
def test_run_session_from_an_address_that_does_not_fit_raises(start_pump: StartPump, address: str) -> None:
    loop = start_pump()
    _, inner = loop.client()
    with pytest.raises(ValueError, match=r"family|IP address"):
        loop.pump.run_session(inner.fileno(), loop.destination, b"", client_address=address)


def test_run_session_after_a_failure_can_use_another_backend(start_pump: StartPump) -> None:
    loop = start_pump()
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    client, inner = loop.client()

    def run() -> None:
        for to in (Destination(address, loop.block), loop.destination):
            loop.ended.append(loop.pump.run_session(inner.fileno(), to, b"hello"))
        inner.close()

    greenlet.greenlet(run).switch()
    loop.until(lambda: len(loop.ended) == 1)
    server, _ = loop.upstream.accept()
    assert loop.read(server, 5) == b"hello"
    server.close()
    client.close()
    loop.until(lambda: len(loop.ended) == 2)
    assert loop.ended[0] == ("refused", 0)


def test_run_session_to_a_unix_socket(start_pump: StartPump, tmp_path: os.PathLike[str]) -> None:
    loop = start_pump()
    path = os.path.join(tmp_path, "application.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        client, inner = loop.client()
        loop.start(inner, Destination(path, loop.block), b"hello")
        server, _ = listening.accept()
        assert loop.read(server, 5) == b"hello"
        server.sendall(b"you")
        server.close()
        assert loop.end_of(client) == (b"you", "fin")
        client.close()
        loop.until(lambda: loop.ended)
    os.unlink(path)
    client, inner = loop.client()
    loop.start(inner, Destination(path, loop.block), b"hello")
    client.close()
    assert [end for end, _ in loop.ended] == ["upstream", "refused"]


def test_run_session_to_a_full_unix_socket_is_refused(start_pump: StartPump, tmp_path: os.PathLike[str]) -> None:
    """TCP would send its SYN again; here connect fails at once, and another backend may have room."""
    loop = start_pump()
    path = os.path.join(tmp_path, "application.sock")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as filler:
        listening.bind(path)
        listening.listen(0)
        filler.connect(path)
        client, inner = loop.client()
        loop.start(inner, Destination(path, loop.block), b"hello")
        client.close()
    assert loop.ended == [("refused", 0)]


def test_idle_timeout_ends_silent_sessions_only(start_pump: StartPump) -> None:
    """Silence ends a session; bytes in either direction keep it open."""
    loop = start_pump(idle_timeout=0.2)
    silent, busy = loop.pair(), loop.pair()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        busy[1].sendall(b"x")
        assert loop.read(busy[0], 1) == b"x"
        loop.turn(0.02)
    assert [end for end, _ in loop.ended] == ["idle"]
    assert loop.pump.open == 1
    assert loop.end_of(silent[0]) == loop.end_of(silent[1]) == (b"", "fin")
    for sock in (*silent, *busy):
        sock.close()


def test_idle_timeout_never_fires_early(start_pump: StartPump) -> None:
    loop = start_pump(idle_timeout=0.25)
    client, server = loop.pair()
    for wait in (0.01, 0.1, 0.005):
        loop.turn(wait)
        client.sendall(b"x")
        loop.read(server, 1)
    last = time.monotonic()
    loop.until(lambda: loop.ended)
    assert time.monotonic() - last >= 0.25
    client.close()
    server.close()


def test_max_duration_ends_a_busy_session(start_pump: StartPump) -> None:
    loop = start_pump(max_duration=0.2, idle_timeout=0.15)
    client, server = loop.pair()
    began = time.monotonic()
    while not loop.ended:
        client.sendall(b"x")
        loop.turn(0.02)
        assert time.monotonic() - began < 4
    assert loop.ended[0][0] == "duration"
    client.close()
    server.close()


def test_timeouts_of_each_destination_end_its_sessions_only(start_pump: StartPump) -> None:
    """A thousand sets of timeouts: each session ends by its own."""
    loop = start_pump(idle_timeout=0)
    numbers = [loop.pump.add_timeouts(**TIMES | {"idle_timeout": 60}) for _ in range(1000)]
    short = loop.pump.add_timeouts(**TIMES | {"idle_timeout": 0.2})
    longer = loop.pump.add_timeouts(**TIMES | {"max_duration": 0.4})
    assert numbers == list(range(1, 1001))
    pairs = [loop.pair(to=Destination(loop.destination.address, loop.block, timeouts=n)) for n in (7, longer, short, 0)]
    loop.until(lambda: len(loop.ended) == 2)
    assert loop.ended == [("idle", 0), ("duration", 0)]
    assert loop.pump.open == 2
    for client, server in pairs:
        client.close()
        server.close()


def test_timeouts_beyond_the_last_set_are_refused(start_pump: StartPump) -> None:
    loop = start_pump()
    client, inner = loop.client()
    with pytest.raises(ValueError, match="no set of timeouts 1"):
        loop.pump.run_session(inner.fileno(), Destination(loop.destination.address, loop.block, timeouts=1), b"")
    inner.close()
    client.close()
    for _ in range(1023):
        loop.pump.add_timeouts(**TIMES)
    with pytest.raises(ValueError, match="at most 1024 sets"):
        loop.pump.add_timeouts(**TIMES)


def test_cut_all_ends_every_session_as_shutdown(start_pump: StartPump) -> None:
    loop = start_pump()
    pairs = [loop.pair() for _ in range(5)]
    loop.pump.cut_all()
    assert loop.ended == []
    assert loop.turn(1)
    assert loop.ended == [("shutdown", 0)] * 5
    assert loop.pump.open == 0
    for client, server in pairs:
        assert until_end(client) == until_end(server) == (b"", "fin")
        client.close()
        server.close()


def test_run_session_over_capacity_fails_for_resources(start_pump: StartPump) -> None:
    loop = start_pump(capacity=2)
    pairs = [loop.pair(), loop.pair()]
    client, inner = loop.client()
    loop.start(inner)
    assert loop.ended == [("resources", 0)]
    for sock in (client, *pairs[0]):
        sock.close()
    loop.until(lambda: loop.pump.open == 1)
    pairs.append(loop.pair())
    for sock in (*pairs[1], *pairs[2]):
        sock.close()
    loop.until(lambda: loop.pump.open == 0)


def test_run_session_in_a_killed_greenlet_frees_the_session(start_pump: StartPump) -> None:
    loop = start_pump()
    client, inner = loop.client()
    one = loop.start(inner)
    server, _ = loop.upstream.accept()
    loop.drain()
    one.throw(greenlet.GreenletExit)
    assert loop.ended == []
    loop.until(lambda: loop.pump.open == 0)
    assert loop.outcomes == {"shutdown": 1}
    assert until_end(client) == until_end(server) == (b"", "fin")
    client.close()
    server.close()


def test_greenlet_that_raises_is_reported_and_others_go_on(start_pump: StartPump) -> None:
    loop = start_pump()

    def run(inner: socket.socket) -> None:
        loop.pump.run_session(inner.fileno(), loop.destination, b"")
        inner.close()
        raise RuntimeError("after it")

    client, inner = loop.client()
    greenlet.greenlet(run).switch(inner)
    loop.upstream.accept()[0].close()
    client.close()
    other = loop.pair()
    loop.until(lambda: loop.errors)
    assert [str(error) for error in loop.errors] == ["after it"]
    loop.errors.clear()
    other[0].sendall(b"on")
    assert loop.read(other[1], 2) == b"on"
    for sock in other:
        sock.close()


def test_pump_with_200_sessions_mixes_nothing_up(start_pump: StartPump) -> None:
    loop = start_pump()
    pairs = [loop.pair(first=b"%4d" % number) for number in range(200)]
    for number, (client, _) in enumerate(pairs):
        client.sendall(b"%4d" % (1000 + number))
    for number, (_, server) in enumerate(pairs):
        assert loop.read(server, 8) == b"%4d%4d" % (number, 1000 + number)
    assert loop.destination.open == 200
    for client, server in pairs:
        client.close()
        server.close()
    loop.until(lambda: loop.pump.open == 0)
    assert loop.destination.open == 0


def test_pump_transfers_32_megabytes_unchanged(start_pump: StartPump) -> None:
    loop = start_pump()
    client, server = loop.pair()
    pattern, size = random.Random(2).randbytes(1 << 20), 32 << 20
    sent, got = 0, 0
    hashes = hashlib.sha256(), hashlib.sha256()
    client.setblocking(False)
    server.setblocking(False)
    deadline = time.monotonic() + 30
    while got < size:
        assert time.monotonic() < deadline
        with suppress(BlockingIOError):
            chunk = pattern[sent % len(pattern) :][: min(1 << 17, size - sent)]
            taken = client.send(chunk) if chunk else 0
            hashes[0].update(chunk[:taken])
            sent += taken
        loop.turn()
        with suppress(BlockingIOError):
            data = server.recv(1 << 17)
            hashes[1].update(data)
            got += len(data)
    assert hashes[0].digest() == hashes[1].digest()
    client.close()
    server.close()


@pytest.mark.parametrize("address", [("localhost", 1), ("1.2.3", 1), "", "x" * 108, "a\0b"])
def test_destination_refuses_a_wrong_address(address: object) -> None:
    with pytest.raises(ValueError, match=r"is not an IP address|a Unix socket's path"):
        Destination(address, bytearray(BLOCK_SIZE))


def test_destination_refuses_a_small_block() -> None:
    with pytest.raises(ValueError, match="a counter block is"):
        Destination(("127.0.0.1", 1), bytearray(8))


def test_run_session_without_a_descriptor_fails_for_resources(start_pump: StartPump) -> None:
    loop = start_pump()
    client, inner = loop.client()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (inner.fileno(), hard))
    try:
        fillers = []
        with suppress(OSError):  # until there is none left
            while True:
                fillers.append(os.dup(0))
        loop.start(inner, first=b"x")
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert loop.ended == [("resources", 0)]
    client.close()


def test_pump_with_wrong_arguments_closes_no_descriptor(start_pump: StartPump) -> None:
    loop = start_pump()
    for wrong in ({"capacity": -1}, {"capacity": "many"}, {"buffers": None}):
        with pytest.raises((TypeError, ValueError)):
            Pump(**({"sleep": print, "on_error": print, "capacity": 1} | wrong))
    os.fstat(0)
    client, server = loop.pair()
    client.close()
    server.close()


def test_check_with_a_wrong_gauge_raises(start_pump: StartPump) -> None:
    """The gauges are the only part of what is checked that a test can change."""
    loop = start_pump()
    client, server = loop.pair()
    assert loop.pump.check() == 1
    words, at = loop.block.cast("Q"), LAYOUT["open"][0] // 8
    words[at] = 2
    with pytest.raises(AssertionError, match="the gauges differ from the sessions"):
        loop.pump.check()
    words[at] = 1
    assert loop.pump.check() == 1
    client.close()
    server.close()


def test_layout_covers_the_counter_block_without_gaps() -> None:
    assert (LAYOUT["ends"][1], LAYOUT["failures"][1]) == (len(ENDS), len(FAILURES))
    ends = [offset + 8 * words for offset, words in LAYOUT.values()]
    assert [offset for offset, _ in LAYOUT.values()] == [0, *ends[:-1]]
    assert ends[-1] <= BLOCK_SIZE
    assert BLOCK_SIZE % 64 == 0
