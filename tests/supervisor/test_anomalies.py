"""A rise is told once, with counts by reason; what is as usual is not; what is the server's own fault always is."""

import logging
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol._fastpath import BLOCK_SIZE, LAYOUT, REASONS
from flashpol.counters.layout import WORD, Block
from flashpol.log.format import fields
from flashpol.log.handler import log
from flashpol.supervisor.anomalies import FLOOR, WINDOW, Anomalies, Anomaly


class Watch:
    """Anomalies of listeners whose counters the test adds to, on a clock of the test's own."""

    def __init__(self, *names: str) -> None:
        self.now = 0.0
        self.words = {name: [0] * (BLOCK_SIZE // WORD) for name in names or ("game",)}
        self.anomalies = Anomalies()
        self.reads = 0
        assert self.look() == []

    def read(self) -> Mapping[str, Block]:
        self.reads += 1
        return {name: Block(words) for name, words in self.words.items()}

    def look(self) -> list[Anomaly]:
        return self.anomalies.look(self.now, self.read)

    def minute(self, listener: str = "game", **counts: int) -> list[Anomaly]:
        for kind, count in counts.items():
            at = LAYOUT["refused"][0] // WORD + REASONS.index(kind) if kind in REASONS else LAYOUT[kind][0] // WORD
            self.words[listener][at] += count
        self.now += WINDOW
        return self.look()


def test_a_rise_is_told_with_its_counts() -> None:
    watch = Watch()
    [anomaly] = watch.minute(tls=12_000, http=345, timeouts=200, buckets=51_000)
    assert str(anomaly) == (
        "listener game: in the last 60 s 12,345 refused (tls 12,000, http 345), 200 timeouts; 51,000 answered"
    )
    assert anomaly.fields == dict.fromkeys(REASONS, 0) | {
        "listener": "game", "window": 60.0, "replies": 51_000, "http": 345, "tls": 12_000,
        "timeouts": 200, "resets": 0, "accept_errors": 0,
    }  # fmt: skip


def test_without_refusals_none_are_named() -> None:
    [anomaly] = Watch().minute(resets=1000, accept_errors=5)
    assert str(anomaly) == "listener game: in the last 60 s 1,000 resets, 5 accept errors; 0 answered"


def test_what_stays_is_told_once_and_what_rises_again_is_told_again() -> None:
    watch = Watch()
    assert watch.minute(tls=1000)
    for _ in range(10):
        assert watch.minute(tls=1000) == []
    assert watch.minute(tls=5000)
    assert watch.minute(tls=5000) == []


def test_what_comes_back_after_a_pause_is_told_again() -> None:
    watch = Watch()
    assert watch.minute(other=10_000)
    for _ in range(5):
        assert watch.minute() == []
    assert watch.minute(other=10_000)


@pytest.mark.parametrize("kind", ["http", "tls", "other", "timeouts", "resets", "accept_errors"])
def test_a_few_are_no_rise(kind: str) -> None:
    watch = Watch()
    assert watch.minute(**{kind: FLOOR - 1}) == []
    watch = Watch()
    assert watch.minute(**{kind: FLOOR})


@pytest.mark.parametrize("kind", ["capacity", "crashed", "max_connections", "max_sessions", "max_slow_replies"])
def test_what_the_server_did_is_told_from_the_first_on(kind: str) -> None:
    watch = Watch()
    for _ in range(3):
        assert watch.minute(**{kind: 1})
    assert watch.minute() == []


def test_all_is_well() -> None:
    watch = Watch()
    assert watch.minute(buckets=1_000_000, shutdown=5000, accepted=1_000_000) == []


def test_counters_are_read_once_a_minute() -> None:
    watch = Watch()
    for _ in range(120):
        watch.now += 1.0
        watch.look()
    assert watch.reads == 3


def test_each_listener_has_its_own_usual() -> None:
    watch = Watch("a", "b")
    assert [anomaly.listener for anomaly in watch.minute("a", tls=1000)] == ["a"]
    assert [anomaly.listener for anomaly in watch.minute("b", tls=1000)] == ["b"]


def test_listeners_come_and_go_with_a_reload() -> None:
    watch = Watch("a")
    watch.words["b"] = [7000] * (BLOCK_SIZE // WORD)
    assert watch.minute("a") == [], "what a new one has counted before is of no window"
    assert watch.minute("b", tls=1000)
    before = watch.words.pop("b")
    assert watch.minute("a") == []
    watch.words["b"] = before
    assert watch.minute("a") == []


def test_counters_that_begin_anew() -> None:
    watch = Watch()
    assert watch.minute(tls=5000)
    watch.words["game"] = [0] * (BLOCK_SIZE // WORD)
    assert watch.minute(tls=10) == []


def test_report_logs_them() -> None:
    watch = Watch()
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        watch.minute()
        watch.words["game"][LAYOUT["timeouts"][0] // WORD] += 500
        watch.anomalies.report(watch.now + WINDOW, watch.read)
    finally:
        log.removeHandler(handler)
    [record] = records
    assert record.getMessage() == "listener game: in the last 60 s 500 timeouts; 0 answered"
    assert (record.levelname, fields(record)["event"], fields(record)["timeouts"]) == ("WARNING", "anomaly", 500)


@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_at_most_one_line_a_minute_and_none_below_the_floor(minutes: list[int]) -> None:
    watch = Watch()
    for count in minutes:
        found = watch.minute(other=count)
        assert len(found) <= 1
        assert not found or (found[0].counts["other"] == count >= FLOOR)
