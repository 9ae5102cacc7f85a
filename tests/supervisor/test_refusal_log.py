"""Log lines about refused connections: at once, then once a minute, with counts by reason and listener."""

import logging

import pytest

from flashpol._fastpath import REASONS
from flashpol.counters.shared import SharedCounters
from flashpol.counters.totals import CounterTotals
from flashpol.log.format import fields
from flashpol.supervisor.refusal_log import LIMITS, PAUSE, RefusalLog


class Site:
    """Two listeners, their counters, and a clock."""

    NAMES = ("game", "chat")

    def __init__(self) -> None:
        self.log = RefusalLog()
        self.totals = CounterTotals()
        self.shared = SharedCounters(1, 2)
        self.totals.open(self.NAMES, self.shared)
        self.now = 1000.0
        self.pass_(1.0)

    def pass_(self, seconds: float) -> None:
        """Look once a second, as the arbiter does."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.log._next_look = 0.0  # whatever the last look cost
            self.log.update(self.now, self.NAMES, self.totals)

    def refuse(self, listener: str, **reasons: int) -> None:
        block = self.shared.block(0, self.NAMES.index(listener))
        for reason, count in reasons.items():
            index = REASONS.index(reason)
            block.put("refused", block.all("refused")[index] + count, index)


@pytest.fixture
def site(caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(logging.INFO)
    return Site()


def test_refusal_log_first_refusals_are_logged_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.refuse("game", max_connections=1200, capacity=34)
    site.pass_(1)
    [record] = caplog.records
    assert record.getMessage() == (
        "listener game: refused 1,234 connections in the last 1 s by limits: max_connections 1,200, capacity 34"
    )
    assert record.levelname == "WARNING"
    assert fields(record) == dict.fromkeys(LIMITS, 0) | {
        "event": "refusing",
        "listener": "game",
        "seconds": 1.0,
        "max_connections": 1200,
        "capacity": 34,
    }


def test_refusal_log_while_it_lasts_writes_one_line_a_minute_that_counts_all(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(180):
        site.refuse("game", max_address_rate=10)
        site.pass_(1)
    assert [fields(record)["max_address_rate"] for record in caplog.records] == [10, 600, 600]
    site.pass_(2 * PAUSE)
    assert sum(fields(record)["max_address_rate"] for record in caplog.records) == 1800  # type: ignore[misc]
    assert len(caplog.records) == 4, "and the rest once, when the minute is over"


def test_refusal_log_of_each_listener_is_its_own(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.refuse("game", max_sessions=1)
    site.pass_(1)
    site.refuse("chat", max_slow_replies=2)
    site.pass_(1)
    assert [fields(record)["listener"] for record in caplog.records] == ["game", "chat"]


def test_refusal_log_of_what_clients_do_wrong_is_silent(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for reason in set(REASONS) - set(LIMITS):
        site.refuse("game", **{reason: 1000})
    site.pass_(PAUSE)
    assert caplog.records == []


def test_refusal_log_of_a_listener_that_is_gone_is_forgotten(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.refuse("chat", capacity=5)
    site.NAMES = ("game",)  # type: ignore[misc, assignment]
    site.pass_(2)
    assert caplog.records == []
    assert list(site.log._listeners) == ["game"]


def test_refusal_log_looks_less_often_when_a_look_is_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.05])
    monkeypatch.setattr("flashpol.supervisor.refusal_log.time.monotonic", lambda: next(clock))
    log = RefusalLog()
    log.update(100.0, (), CounterTotals())
    assert log._next_look == pytest.approx(105.0)
