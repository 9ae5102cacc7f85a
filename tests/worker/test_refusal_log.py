"""Log lines about refused connections: at once, then once a minute, with the addresses that are refused most."""

import logging
from collections import defaultdict

import pytest

from flashpol.config import ConnectionLimits
from flashpol.log.format import fields
from flashpol.worker.limits import PlaceLimits
from flashpol.worker.refusal_log import PAUSE, SHOWN, RefusalLog


class Table:
    """The part of a ConnectionTable that the log reads."""

    def __init__(self) -> None:
        self.refused: dict[tuple[int, str], dict[str, int]] = defaultdict(dict)

    def refuse(self, listener: int, reason: str, **addresses: int) -> None:
        counts = self.refused[listener, reason]
        for address, count in addresses.items():
            counts[address] = counts.get(address, 0) + count

    def refusals(self) -> list[tuple[int, str]]:
        return list(self.refused)

    def take_refusals(self, listener: int, reason: str) -> tuple[int, list[tuple[str, int, int]]]:
        rows = self.refused.pop((listener, reason))
        return sum(rows.values()), [(address, count + 5, 5) for address, count in rows.items()]


class Site:
    """A worker of three acceptors, two of them of one listener, and a clock."""

    NAMES = ("game", "chat", "game")

    def __init__(self) -> None:
        limits = ConnectionLimits(max_connections=50_000, max_worker_connections=20_000, max_address_rate=7)
        self.now = 1000.0
        self.table = Table()
        self.log = RefusalLog(PlaceLimits.of(limits).describe, self.now)

    def pass_(self, seconds: float, *, end: bool = False) -> None:
        """Look once a second, as a worker does."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.log.update(self.now, self.table, self.NAMES, end=end)  # type: ignore[arg-type]


@pytest.fixture
def site(caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(logging.INFO)
    return Site()


def test_refusal_log_first_refusals_are_logged_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.table.refuse(0, "max_address_connections", a=14, b=1190)
    site.pass_(1)
    [record] = caplog.records
    assert record.getMessage() == (
        "listener game: refused 1,204 connections in 1 s over max_address_connections (1,000); "
        "most from b (1,190), a (14)"
    )
    assert record.levelname == "WARNING"
    assert fields(record) == {
        "event": "refusing",
        "listener": "game",
        "reason": "max_address_connections",
        "refused": 1204,
        "seconds": 1.0,
        "addresses": {"b": 1190, "a": 14},
    }


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("max_connections", "over max_connections (50,000) or max_worker_connections (20,000)"),
        ("max_address_rate", "over max_address_rate (7)"),
        ("max_sessions", "over max_sessions ("),
        ("max_slow_replies", "over max_slow_replies ("),
        ("max_handshakes", "over max_handshakes ("),
        ("tls_handshake", "whose TLS handshake failed"),
        ("tls_only", "that did not speak TLS"),
        ("capacity", "for lack of file descriptors or memory"),
    ],
)
def test_refusal_log_names_the_limit(site: Site, caplog: pytest.LogCaptureFixture, reason: str, words: str) -> None:
    site.table.refuse(1, reason, a=1)
    site.pass_(1)
    assert caplog.messages[0].startswith(f"listener chat: refused 1 connection in 1 s {words}")


def test_refusal_log_while_it_lasts_writes_one_line_a_minute_that_counts_all(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(180):
        site.table.refuse(0, "max_address_rate", a=10)
        site.pass_(1)
    assert [(record.refused, record.seconds) for record in caplog.records] == [(10, 1), (600, 60), (600, 60)]


def test_refusal_log_after_a_quiet_time_counts_seconds_from_its_end(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for quiet in (1, 30, 500, PAUSE):
        site.table.refuse(0, "max_address_rate", a=1)
        site.pass_(1)
        site.pass_(quiet)
    assert [(record.refused, record.seconds) for record in caplog.records] == [(1, 1), (2, 59), (1, 1)]
    assert site.log._events == {}


def test_refusal_log_of_each_listener_and_limit_is_its_own(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.table.refuse(0, "capacity", a=1)
    site.pass_(1)
    site.table.refuse(1, "capacity", a=2)
    site.table.refuse(0, "max_sessions", a=3)
    site.pass_(1)
    assert [(record.listener, record.reason, record.refused) for record in caplog.records] == [
        ("game", "capacity", 1),
        ("chat", "capacity", 2),
        ("game", "max_sessions", 3),
    ]


def test_refusal_log_of_a_listener_with_two_acceptors_is_one_line(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.table.refuse(0, "capacity", a=1, b=2)
    site.table.refuse(2, "capacity", a=4)
    site.pass_(1)
    [record] = caplog.records
    assert (record.refused, record.addresses) == (7, {"a": 5, "b": 2})


def test_refusal_log_shows_the_first_addresses_only(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.table.refuse(0, "capacity", **{f"a{number}": number for number in range(1, 10)})
    site.pass_(1)
    assert list(caplog.records[0].addresses.values()) == [9, 8, 7, 6, 5]
    assert len(caplog.records[0].addresses) == SHOWN


def test_refusal_log_without_an_address_says_none(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.table.refuse(0, "capacity")
    site.pass_(1)
    assert "most from" not in caplog.messages[0]


def test_refusal_log_at_the_end_logs_what_is_not_due(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for end in (False, False, True):
        site.table.refuse(0, "capacity", a=1)
        site.pass_(1, end=end)
    assert [record.refused for record in caplog.records] == [1, 2]
