"""Which upstream is next, and which is left out: with a clock of the test's own."""

import socket
import time

import gevent
import greenlet
import pytest

from flashpol._pump import FAILURES, Pump
from flashpol.config import UpstreamAddress
from flashpol.counters.shared import SharedCounters
from flashpol.relay import backends as upstream
from flashpol.relay.backends import FAILURES as LIMIT
from flashpol.relay.backends import OUT_FOR, Address, Upstreams


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, *remotes: UpstreamAddress, balance: str = "round-robin") -> Upstreams:
    shared = SharedCounters(1, 1, upstreams=len(remotes))
    blocks = [shared.relay_memory(0, number) for number in range(len(remotes))]
    return Upstreams(remotes, blocks, balance=balance, clock=clock)


def ports(upstreams: Upstreams, count: int) -> list[int]:
    found = []
    for _ in range(count):
        address = upstreams.choose()
        assert address
        found.append(address.destination.address[1])
    return found


@pytest.fixture
def pump() -> Pump:
    return Pump(
        sleep=greenlet.getcurrent().switch,
        on_error=print,
        capacity=10,
        connect_timeout=1,
        idle_timeout=0,
        max_duration=0,
    )


def fail(pump: Pump, upstreams: Upstreams, address: Address) -> None:
    """Nobody listens on port 1 of that address."""
    with socket.socket() as client:
        outcome: list[str] = []
        one = greenlet.greenlet(lambda: outcome.append(pump.run_session(client.fileno(), address.destination, b"x")[0]))
        one.switch()
        assert outcome[0] in FAILURES
    upstreams.failed(address)


A, B, C = (UpstreamAddress(f"127.0.0.{n}", 1) for n in (1, 2, 3))


def hosts(upstreams: Upstreams, count: int) -> list[str]:
    return [address.destination.address[0][-1] for _ in range(count) if (address := upstreams.choose())]


def test_turns(clock: Clock) -> None:
    assert sorted(hosts(make(clock, A, B, C), 9)) == ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    assert hosts(make(clock, A), 3) == ["1"] * 3


def test_not_what_was_tried(clock: Clock) -> None:
    upstreams = make(clock, A, B)
    first = upstreams.choose()
    assert first
    second = upstreams.choose([first])
    assert second
    assert second is not first
    assert upstreams.choose([first, second]) is None


def test_left_out_after_some_failures_in_a_row_then_tried_by_one(clock: Clock, pump: Pump) -> None:
    upstreams = make(clock, A, B)
    bad = next(iter(upstreams))
    for _ in range(LIMIT):
        assert "1" in hosts(upstreams, 2)
        fail(pump, upstreams, bad)
    assert hosts(upstreams, 10) == ["2"] * 10
    clock.now += OUT_FOR
    assert sorted(hosts(upstreams, 6)) == ["1"] + ["2"] * 5
    fail(pump, upstreams, bad)
    assert hosts(upstreams, 6) == ["2"] * 6


def test_well_again(clock: Clock, pump: Pump) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstreams = make(clock, UpstreamAddress(*listening.getsockname()), B)
        address = next(iter(upstreams))
    for _ in range(LIMIT):
        fail(pump, upstreams, address)
    assert address.destination.failures == LIMIT
    with socket.create_server(address.destination.address) as listening, socket.socket() as client:
        greenlet.greenlet(lambda: pump.run_session(client.fileno(), address.destination, b"x")).switch()
        listening.accept()[0].close()
        assert address.destination.failures == 0
        pump.cut_all()
        pump.ready()
    assert sorted(set(hosts(upstreams, 4))) == ["1", "2"]


def test_when_all_are_left_out_they_are_tried_all_the_same(clock: Clock, pump: Pump) -> None:
    upstreams = make(clock, A, B)
    for address in upstreams:
        for _ in range(LIMIT):
            fail(pump, upstreams, address)
    assert sorted(hosts(upstreams, 4)) == ["1", "1", "2", "2"]


def test_a_name_stands_for_all_its_addresses(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [["192.0.2.1", "192.0.2.2", "192.0.2.1"], ["192.0.2.2", "192.0.2.3"]]

    def look_up(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        assert (host, port) == ("games.example", 7000)
        return [(None, type, 6, "", (ip, port)) for ip in answers.pop(0)]

    monkeypatch.setattr(upstream, "getaddrinfo", look_up)
    upstreams = make(clock, UpstreamAddress("games.example", 7000))
    [games] = upstreams._all
    games.look_up()
    before = list(upstreams)
    assert sorted(hosts(upstreams, 2)) == ["1", "2"]
    games.look_up()
    after = list(upstreams)
    assert sorted(hosts(upstreams, 2)) == ["2", "3"]
    assert before[1] is after[0]  # it stays as it is, with what is known of it


def test_while_a_name_cannot_be_looked_up_what_was_known_serves(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    upstreams = make(clock, UpstreamAddress("games.example", 7000))
    [games] = upstreams._all
    games.use([("192.0.2.1", 7000)])
    monkeypatch.setattr(upstream, "LOOK_UP_EVERY", 0.001)
    errors: list[object] = []

    def look_up(*arguments: object, **named: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(upstream, "getaddrinfo", look_up)
    upstreams._on_error = lambda remote, error: errors.append((str(remote), error.strerror))
    upstreams.start()
    assert upstreams.wait(4) is True
    upstreams.stop()
    assert errors[0] == ("games.example:7000", "Name or service not known")
    assert hosts(upstreams, 1) == ["1"]


def test_an_address_that_names_its_interface(clock: Clock) -> None:
    upstreams = make(clock, UpstreamAddress.parse("[fe80::1%lo]:7000"))
    upstreams.start()
    assert upstreams.wait(5) is True
    upstreams.stop()
    [address] = upstreams
    assert address.destination.address[3] == socket.if_nametoindex("lo")


def test_whatever_goes_wrong_it_is_looked_up_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RuntimeError("can't start new thread"), MemoryError(), UnicodeError("label too long")])

    def look_up(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        if error := next(answers, None):
            raise error
        return [(None, type, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(upstream, "getaddrinfo", look_up)
    monkeypatch.setattr(upstream, "LOOK_UP_EVERY", 0.001)
    upstreams = make(clock, UpstreamAddress("games.example", 7000))
    upstreams.start()
    with gevent.Timeout(5):
        while not list(upstreams):
            gevent.sleep(0.001)
    upstreams.stop()
    assert hosts(upstreams, 1) == ["1"]


def test_nobody_waits_for_a_name_while_another_upstream_is_known(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        if host == "slow.example":
            gevent.sleep(60)
        return [(None, type, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(upstream, "getaddrinfo", look_up)
    quick, slow = UpstreamAddress("quick.example", 1), UpstreamAddress("slow.example", 1)
    for remotes in ((quick, slow), (slow, A)):
        upstreams = make(clock, *remotes)
        upstreams.start()
        began = time.monotonic()
        assert upstreams.wait(10) is True
        assert time.monotonic() - began < 5
        upstreams.stop()


def test_stopping_wakes_those_who_wait_for_a_name(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "getaddrinfo", lambda *_, **__: gevent.sleep(60))
    upstreams = make(clock, UpstreamAddress("slow.example", 1))
    upstreams.start()
    waiting = gevent.spawn(upstreams.wait, 60)
    gevent.sleep(0)
    upstreams.stop()
    assert waiting.get(timeout=5) is False


def test_what_needs_no_name_server_is_ready_at_once(clock: Clock) -> None:
    upstreams = make(clock, A, UpstreamAddress("", 0, "/run/game.sock"))
    upstreams.start()
    assert upstreams._resolver is None
    assert upstreams.wait(0) is True
    assert {address.destination.address for address in upstreams} == {("127.0.0.1", 1), "/run/game.sock"}
