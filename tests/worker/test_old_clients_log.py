"""Log lines about TLS clients that are too old: at once, then once a minute while they come."""

import logging

import pytest

from flashpol._fastpath import HANDSHAKE_FAILURES
from flashpol.counters.shared import SharedCounters
from flashpol.log.format import fields
from flashpol.worker.old_clients_log import PAUSE, OldClientsLog

OLD_CLIENT, OTHER = HANDSHAKE_FAILURES.index("old_client"), HANDSHAKE_FAILURES.index("cipher")


class Site:
    """A worker of two listeners, whose predecessor in the slot counted clients too, and a clock."""

    NAMES = ("game", "chat")

    def __init__(self) -> None:
        self.now = 1000.0
        self.shared = SharedCounters(1, 2)
        self.refuse(0, 50)
        self.log = OldClientsLog(self.now)
        for number, name in enumerate(self.NAMES):
            self.log.add(name, self.shared.block(0, number))

    def refuse(self, listener: int, count: int, reason: int = OLD_CLIENT) -> None:
        block = self.shared.block(0, listener)
        block.put("handshake_failures", block.all("handshake_failures")[reason] + count, reason)

    def pass_(self, seconds: float, *, end: bool = False) -> None:
        """Look once a second, as a worker does."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.log.update(self.now, end=end)


@pytest.fixture
def site(caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(logging.INFO)
    return Site()


def test_old_clients_log_first_clients_are_logged_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.refuse(0, 12)
    site.pass_(1)
    [record] = caplog.records
    assert record.getMessage() == (
        "listener game: refused 12 TLS clients in 1 s that offered only CBC cipher suites; AIR and Flash clients need "
        'tls_profile = "flash"'
    )
    assert record.levelname == "WARNING"
    assert fields(record) == {"event": "tls-old-clients", "listener": "game", "refused": 12, "seconds": 1.0}


def test_old_clients_log_while_they_come_writes_one_line_a_minute_that_counts_all(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(180):
        site.refuse(1, 1)
        site.pass_(1)
    assert [(record.listener, record.refused, record.seconds) for record in caplog.records] == [
        ("chat", 1, 1), ("chat", 60, 60), ("chat", 60, 60)
    ]  # fmt: skip


def test_old_clients_log_after_a_quiet_time_counts_seconds_from_its_end(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for quiet in (1, 500, PAUSE):
        site.refuse(0, 1)
        site.pass_(1)
        site.pass_(quiet)
    assert [(record.refused, record.seconds) for record in caplog.records] == [(1, 1), (1, 59), (1, 1)]


def test_old_clients_log_of_a_predecessor_or_another_failure_is_empty(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.refuse(0, 9, OTHER)
    site.pass_(120, end=True)
    assert caplog.records == []


def test_old_clients_log_at_the_end_logs_what_is_not_due(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for end in (False, False, True):
        site.refuse(0, 1)
        site.pass_(1, end=end)
    assert [record.refused for record in caplog.records] == [1, 2]
