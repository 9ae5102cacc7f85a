"""Which backend a session gets, which are left out, and what the log says of it: with a clock of the test's own."""

import logging
import socket
import time
from collections.abc import Callable

import gevent
import greenlet
import pytest

from flashpol._pump import FAILURES, Pump
from flashpol.config import UpstreamAddress
from flashpol.counters.shared import SharedCounters
from flashpol.log.format import fields
from flashpol.relay import backends
from flashpol.relay.backends import FAIL_TIMEOUT, MAX_FAILS, Backend, Upstreams


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def log(monkeypatch: pytest.MonkeyPatch) -> logging.Logger:
    """A logger without the rate limit, which would hold lines back until a later test."""
    log = logging.getLogger("test_backends")
    log.setLevel(logging.INFO)
    monkeypatch.setattr(backends, "log", log)
    return log


def make(clock: Clock, *remotes: UpstreamAddress, balance: str = "round-robin") -> Upstreams:
    shared = SharedCounters(1, 1, upstreams=len(remotes))
    blocks = [shared.relay_memory(0, number) for number in range(len(remotes))]
    return Upstreams(remotes, blocks, listener="games", balance=balance, clock=clock)


@pytest.fixture
def pump() -> Pump:
    pump = Pump(sleep=greenlet.getcurrent().switch, on_error=print, capacity=10)
    pump.add_timeouts(connect_timeout=1, idle_timeout=0, max_duration=0, silent_timeout=0)
    return pump


def run_session(pump: Pump, client: socket.socket, backend: Backend) -> list[str]:
    """The list gets the outcome when the session has ended."""
    outcome: list[str] = []
    greenlet.greenlet(lambda: outcome.append(pump.run_session(client.fileno(), backend.destination, b"x")[0])).switch()
    return outcome


def fail(pump: Pump, upstreams: Upstreams, backend: Backend) -> None:
    """One connect, which is refused."""
    with socket.socket() as client:
        [outcome] = run_session(pump, client, backend)
    assert outcome in FAILURES
    upstreams.mark_failed(backend, outcome)


def succeed(pump: Pump, backend: Backend) -> None:
    """One connect that succeeds, to the backend's address, at which nothing listens before and after."""
    with socket.create_server(backend.destination.address) as listening, socket.socket() as client:
        run_session(pump, client, backend)
        listening.accept()[0].close()
        pump.cut_all()
        pump.ready()


A, B, C = (UpstreamAddress(f"127.0.0.{n}", 1) for n in (1, 2, 3))  # nothing listens on port 1


def hosts(upstreams: Upstreams, count: int) -> list[str]:
    """The last digit of the addresses chosen."""
    return [backend.destination.address[0][-1] for _ in range(count) if (backend := upstreams.choose())]


def test_round_robin_gives_each_backend_as_many_sessions(clock: Clock) -> None:
    assert sorted(hosts(make(clock, A, B, C), 9)) == ["1"] * 3 + ["2"] * 3 + ["3"] * 3
    assert hosts(make(clock, A), 3) == ["1"] * 3


def test_choose_leaves_out_backends_that_were_tried(clock: Clock) -> None:
    upstreams = make(clock, A, B)
    first = upstreams.choose()
    assert first
    second = upstreams.choose([first])
    assert second
    assert second is not first
    assert upstreams.choose([first, second]) is None


def test_backend_after_max_fails_is_left_out_then_tried_by_one_session(clock: Clock, pump: Pump) -> None:
    upstreams = make(clock, A, B)
    bad = next(iter(upstreams))
    for _ in range(MAX_FAILS):
        assert "1" in hosts(upstreams, 2)
        fail(pump, upstreams, bad)
    assert hosts(upstreams, 10) == ["2"] * 10
    clock.now += FAIL_TIMEOUT
    assert sorted(hosts(upstreams, 6)) == ["1"] + ["2"] * 5
    fail(pump, upstreams, bad)
    assert hosts(upstreams, 6) == ["2"] * 6
    upstreams.stop()


def test_backend_that_is_reached_again_takes_its_turns_again(clock: Clock, pump: Pump) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstreams = make(clock, UpstreamAddress(*listening.getsockname()), B)
        backend = next(iter(upstreams))
    for _ in range(MAX_FAILS):
        fail(pump, upstreams, backend)
    assert backend.destination.failures == MAX_FAILS
    succeed(pump, backend)
    assert backend.destination.failures == 0
    assert sorted(set(hosts(upstreams, 4))) == ["1", "2"]
    upstreams.stop()


def test_all_backends_down_are_tried_in_turn(clock: Clock, pump: Pump) -> None:
    upstreams = make(clock, A, B)
    for backend in upstreams:
        for _ in range(MAX_FAILS):
            fail(pump, upstreams, backend)
    assert sorted(hosts(upstreams, 4)) == ["1", "1", "2", "2"]
    upstreams.stop()


# ----------------------------------------------------------------------------------------------------------- log lines


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines logged since the last call."""

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    return lines


def test_backend_down_is_logged_once_at_max_fails(clock: Clock, pump: Pump, logged: Callable[[], list[str]]) -> None:
    upstreams = make(clock, A, B)
    first, second = upstreams
    for _ in range(MAX_FAILS - 1):
        fail(pump, upstreams, first)
    assert logged() == []
    for _ in range(3):
        fail(pump, upstreams, first)
    assert logged() == [
        "listener games: backend 127.0.0.1:1 is down: connection refused (3 failures in a row); retrying every 10 s"
    ]
    for _ in range(MAX_FAILS):
        fail(pump, upstreams, second)
    assert logged() == [
        "listener games: backend 127.0.0.2:1 is down: connection refused (3 failures in a row); "
        "no other backend is up, so sessions still try it"
    ]


def test_backend_down_log_fields_name_listener_upstream_and_backend(
    clock: Clock, pump: Pump, caplog: pytest.LogCaptureFixture
) -> None:
    upstreams = make(clock, UpstreamAddress("games.example", 1))
    upstreams._all[0].use([("127.0.0.1", 1)])
    [backend] = upstreams
    for _ in range(MAX_FAILS):
        fail(pump, upstreams, backend)
    [record] = caplog.records
    assert "backend 127.0.0.1:1 (games.example:1) is down" in record.getMessage()
    assert fields(record) == {
        "event": "backend-down", "reason": "refused", "listener": "games", "upstream": "games.example:1",
        "backend": "127.0.0.1:1",
    }  # fmt: skip


def test_backend_up_again_is_logged_while_its_session_lasts(
    clock: Clock, pump: Pump, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "TRIAL_POLL", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstreams = make(clock, UpstreamAddress(*listening.getsockname()))
    [backend] = upstreams
    for _ in range(MAX_FAILS):
        fail(pump, upstreams, backend)
    assert len(logged()) == 1
    clock.now += 42
    assert upstreams.choose() is backend
    with socket.create_server(backend.destination.address) as listening, socket.socket() as client:
        outcome = run_session(pump, client, backend)
        listening.accept()[0].close()
        gevent.sleep(0.02)
        assert logged() == [f"listener games: backend {backend.remote} is up again after 42 s"]
        assert outcome == []  # the session goes on
        pump.cut_all()
        pump.ready()
    for _ in range(MAX_FAILS):
        fail(pump, upstreams, backend)
    assert len(logged()) == 1  # down once more
    upstreams.stop()


def test_backend_up_again_has_the_others_tried_at_once(
    clock: Clock, pump: Pump, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "TRIAL_POLL", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        upstreams = make(clock, UpstreamAddress(*listening.getsockname()), B, balance="least-connections")
    for backend in upstreams:
        for _ in range(MAX_FAILS):
            fail(pump, upstreams, backend)
    first, second = upstreams
    assert {upstreams.choose(), upstreams.choose()} == {first, second}
    clock.now += 1
    succeed(pump, first)
    gevent.sleep(0.02)
    assert first.down_since is None
    assert sorted(hosts(upstreams, 6)) == ["1"] * 5 + ["2"]  # one session, as after FAIL_TIMEOUT
    upstreams.stop()


def test_backend_whose_trial_fails_stays_down_without_a_line(
    clock: Clock, pump: Pump, logged: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "TRIAL_POLL", 0.001)
    upstreams = make(clock, A)
    [backend] = upstreams
    for _ in range(MAX_FAILS):
        fail(pump, upstreams, backend)
    logged()
    for _ in range(3):
        assert upstreams.choose() is backend
        fail(pump, upstreams, backend)
        gevent.sleep(0.01)
    assert logged() == []
    assert not upstreams._greenlets  # nothing goes on polling
    assert backend.down_since == 1000.0


# --------------------------------------------------------------------------------------------------------------- names


def test_name_with_several_addresses_has_a_backend_for_each(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [["192.0.2.1", "192.0.2.2", "192.0.2.1"], ["192.0.2.2", "192.0.2.3"]]

    def look_up(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        assert (host, port) == ("games.example", 7000)
        return [(None, type, 6, "", (ip, port)) for ip in results.pop(0)]

    monkeypatch.setattr(backends, "getaddrinfo", look_up)
    upstreams = make(clock, UpstreamAddress("games.example", 7000))
    [games] = upstreams._all
    games.look_up()
    before = list(upstreams)
    assert sorted(hosts(upstreams, 2)) == ["1", "2"]
    games.look_up()
    after = list(upstreams)
    assert sorted(hosts(upstreams, 2)) == ["2", "3"]
    assert before[1] is after[0]  # with its failures and sessions


def test_name_that_cannot_be_looked_up_again_keeps_its_backends(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstreams = make(clock, UpstreamAddress("games.example", 7000))
    [games] = upstreams._all
    games.use([("192.0.2.1", 7000)])
    monkeypatch.setattr(backends, "LOOKUP_INTERVAL", 0.001)

    def look_up(*arguments: object, **named: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(backends, "getaddrinfo", look_up)
    upstreams.start()
    assert upstreams.wait(4) is True
    upstreams.stop()
    assert caplog.records[0].getMessage() == (
        "listener games: cannot look up the address of upstream games.example:7000: Name or service not known; "
        "trying again every 0 s"
    )
    assert hosts(upstreams, 1) == ["1"]


def test_address_with_a_zone_is_looked_up_to_its_interface(clock: Clock) -> None:
    upstreams = make(clock, UpstreamAddress.parse("[fe80::1%lo]:7000"))
    upstreams.start()
    assert upstreams.wait(5) is True
    upstreams.stop()
    [backend] = upstreams
    assert backend.destination.address[3] == socket.if_nametoindex("lo")


def test_look_up_that_raises_anything_is_repeated(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    results = iter([RuntimeError("can't start new thread"), MemoryError(), UnicodeError("label too long")])

    def look_up(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        if error := next(results, None):
            raise error
        return [(None, type, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(backends, "getaddrinfo", look_up)
    monkeypatch.setattr(backends, "LOOKUP_INTERVAL", 0.001)
    upstreams = make(clock, UpstreamAddress("games.example", 7000))
    upstreams.start()
    with gevent.Timeout(5):
        while not list(upstreams):
            gevent.sleep(0.001)
    upstreams.stop()
    assert hosts(upstreams, 1) == ["1"]


def test_wait_with_one_backend_known_does_not_wait_for_another_name(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(host: str, port: int, type: int) -> list[tuple[object, ...]]:
        if host == "slow.example":
            gevent.sleep(60)
        return [(None, type, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(backends, "getaddrinfo", look_up)
    quick, slow = UpstreamAddress("quick.example", 1), UpstreamAddress("slow.example", 1)
    for remotes in ((quick, slow), (slow, A)):
        upstreams = make(clock, *remotes)
        upstreams.start()
        began = time.monotonic()
        assert upstreams.wait(10) is True
        assert time.monotonic() - began < 5
        upstreams.stop()


def test_stop_wakes_a_session_that_waits_for_a_name(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "getaddrinfo", lambda *_, **__: gevent.sleep(60))
    upstreams = make(clock, UpstreamAddress("slow.example", 1))
    upstreams.start()
    waiting = gevent.spawn(upstreams.wait, 60)
    gevent.sleep(0)
    upstreams.stop()
    assert waiting.get(timeout=5) is False


def test_addresses_and_paths_need_no_look_up(clock: Clock) -> None:
    upstreams = make(clock, A, UpstreamAddress("", 0, "/run/game.sock"))
    upstreams.start()
    assert not upstreams._greenlets
    assert upstreams.wait(0) is True
    assert {backend.destination.address for backend in upstreams} == {("127.0.0.1", 1), "/run/game.sock"}
