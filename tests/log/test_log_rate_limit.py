"""A flood of one log call is a burst, a trickle and a count; it hides no others, and nothing is lost unsaid."""

import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.log.rate_limit import CHECK_EVERY, ONCE_A_MINUTE, USUAL, Rate, RateLimit


class Log(logging.Handler):
    """A logger with a limit, a clock of the test's own, and what came through."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.records: list[logging.LogRecord] = []
        self.logger = logging.Logger("test")
        self.limit = RateLimit(self.logger.handle, clock=lambda: self.now)
        self.logger.addFilter(self.limit)
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def take(self) -> list[str]:
        lines = [record.getMessage() for record in self.records]
        self.records.clear()
        return lines

    def flood(self, count: int, listener: str | None = None, rate: Rate | None = USUAL) -> None:
        for number in range(count):
            self.logger.warning("no room for %d", number, extra={"event": "full", "listener": listener, "rate": rate})


@pytest.fixture
def log() -> Iterator[Log]:
    return Log()


def test_rate_limit_after_the_burst_counts_the_rest_in_one_line(log: Log) -> None:
    log.flood(USUAL.burst + 1234)
    assert log.take() == [f"no room for {n}" for n in range(USUAL.burst)]
    log.now += USUAL.seconds
    log.limit.report()
    [record] = log.records
    assert record.getMessage() == f"1,234 more in the last {USUAL.seconds:.0f} s like: no room for {USUAL.burst}"
    assert (record.suppressed, record.event, record.levelname) == (1234, "full", "WARNING")
    log.take()
    log.now += USUAL.seconds
    log.limit.report()
    assert log.take() == [], "reported once"


def test_rate_limit_of_a_lasting_flood_lets_a_trickle_through(log: Log) -> None:
    for _ in range(600):
        log.now += 1.0
        log.flood(100)
    lines = log.take()
    assert len(lines) <= USUAL.burst + 600 + 600 / USUAL.seconds


def test_rate_limit_reports_before_the_next_record_of_any_kind(log: Log) -> None:
    log.flood(USUAL.burst + 1)
    log.now += USUAL.seconds
    log.take()
    log.logger.info("something else")
    assert log.take() == [
        f"1 more in the last {USUAL.seconds:.0f} s like: no room for {USUAL.burst}",
        "something else",
    ]


def test_report_everything_reports_before_it_is_due(log: Log) -> None:
    log.flood(3, rate=ONCE_A_MINUTE)
    assert log.take() == ["no room for 0"]
    log.now += 5
    log.limit.report()
    assert log.take() == [], "not yet"
    log.limit.report(everything=True)
    assert log.take() == ["2 more in the last 5 s like: no room for 1"]


def test_rate_limit_of_each_call_and_listener_is_its_own(log: Log) -> None:
    log.flood(100, "a", ONCE_A_MINUTE)
    log.flood(100, "b", ONCE_A_MINUTE)
    log.logger.warning("no room for %d", 1)
    assert len(log.take()) == 3


def test_rate_limit_of_changing_texts_is_that_of_their_call(log: Log) -> None:
    for number in range(1000):
        log.logger.warning(f"a client said {number}")
    assert len(log.take()) == USUAL.burst


def test_rate_limit_none_lets_every_record_through(log: Log) -> None:
    log.flood(1000, rate=None)
    assert len(log.take()) == 1000


def test_rate_limit_forgets_unused_allowances(log: Log) -> None:
    for number in range(1000):
        log.flood(1, f"listener {number}")
    log.now += USUAL.seconds + CHECK_EVERY
    log.limit.report()
    assert not log.limit._allowances


def test_suppressed_record_does_not_keep_its_traceback(log: Log) -> None:
    for _ in range(2):
        try:
            raise ValueError
        except ValueError:
            log.logger.warning("failed", exc_info=True, extra={"rate": ONCE_A_MINUTE})
    assert [a.first.exc_info for a in log.limit._allowances.values() if a.first] == [None]


def test_suppressed_record_with_a_mistake_is_reported(log: Log) -> None:
    for _ in range(2):
        log.logger.warning("%d of %d", 1, extra={"rate": ONCE_A_MINUTE})
    log.records.clear()
    log.limit.report(everything=True)
    assert log.take() == ["1 more in the last 0 s like: %d of %d"]


@given(st.integers(1, 20), st.floats(0.1, 100), st.lists(st.floats(0, 50), max_size=200))
def test_rate_limit_writes_or_counts_every_line(burst: int, seconds: float, pauses: list[float]) -> None:
    log = Log()
    began = log.now
    for pause in pauses:
        log.now += pause
        log.flood(1, rate=Rate(burst, seconds))
    written = sum(not hasattr(record, "suppressed") for record in log.records)
    assert written <= burst + (log.now - began) * burst / seconds + 1e-6
    log.limit.report(everything=True)
    assert written + sum(getattr(record, "suppressed", 0) for record in log.records) == len(pauses)
