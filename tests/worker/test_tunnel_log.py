"""Log lines about ghosts, and about requests that another worker did not reply to: at once, then once a minute."""

import logging

import pytest

from flashpol._tunnel import ENDS
from flashpol.counters.shared import SharedCounters
from flashpol.log.format import fields
from flashpol.worker.tunnel_log import PAUSE, TunnelLog


class Site:
    """A worker of two listeners, whose predecessor in the slot counted sessions too, and a clock."""

    NAMES = ("film", "chat")

    def __init__(self) -> None:
        self.now = 1000.0
        self.shared = SharedCounters(1, 2, tunnels=2)
        self.end(0, 50)
        self.fail(0, 50)
        self.log = TunnelLog(self.now)
        for number, name in enumerate(self.NAMES):
            self.log.add(name, self.shared.tunnel_block(0, number))

    def end(self, listener: int, count: int, by: str = "ghost") -> None:
        block = self.shared.tunnel_block(0, listener)
        block.put("ends", block.all("ends")[ENDS.index(by)] + count, ENDS.index(by))

    def fail(self, listener: int, count: int) -> None:
        block = self.shared.tunnel_block(0, listener)
        block.put("forward_failures", block["forward_failures"] + count)

    def pass_(self, seconds: float, *, end: bool = False) -> None:
        """Look once a second, as a worker does."""
        for _ in range(int(seconds)):
            self.now += 1.0
            self.log.update(self.now, end=end)


@pytest.fixture
def site(caplog: pytest.LogCaptureFixture) -> Site:
    caplog.set_level(logging.INFO)
    return Site()


def test_tunnel_log_first_ghosts_are_logged_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.end(0, 1200)
    site.pass_(1)
    [record] = caplog.records
    assert record.getMessage() == (
        "listener film: ended 1,200 tunnel sessions in 1 s whose client sent no request for rtmpt_session_timeout"
    )
    assert record.levelname == "INFO"
    assert fields(record) == {"event": "rtmpt-ghosts", "listener": "film", "sessions": 1200, "seconds": 1.0}


def test_tunnel_log_request_without_a_reply_of_another_worker_is_a_warning(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.fail(1, 1)
    site.pass_(1)
    [record] = caplog.records
    assert record.getMessage() == (
        "listener chat: got no reply to 1 request in 1 s from the workers that have the sessions; their clients got "
        "404 or 503"
    )
    assert record.levelname == "WARNING"
    assert fields(record) == {"event": "rtmpt-forward-failed", "listener": "chat", "requests": 1, "seconds": 1.0}


def test_tunnel_log_while_they_come_writes_one_line_a_minute_that_counts_all(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(180):
        site.end(1, 1)
        site.pass_(1)
    assert [(record.listener, record.sessions, record.seconds) for record in caplog.records] == [
        ("chat", 1, 1), ("chat", 60, 60), ("chat", 60, 60)
    ]  # fmt: skip


def test_tunnel_log_after_a_quiet_time_counts_seconds_from_its_end(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    for quiet in (1, 500, PAUSE):
        site.end(0, 1)
        site.pass_(1)
        site.pass_(quiet)
    assert [(record.sessions, record.seconds) for record in caplog.records] == [(1, 1), (1, 59), (1, 1)]


def test_tunnel_log_of_a_predecessor_or_another_end_is_empty(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.end(0, 9, "upstream")
    site.pass_(120, end=True)
    assert caplog.records == []


def test_tunnel_log_at_the_end_logs_what_is_not_due(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for end in (False, False, True):
        site.fail(0, 1)
        site.pass_(1, end=end)
    assert [record.requests for record in caplog.records] == [1, 2]
