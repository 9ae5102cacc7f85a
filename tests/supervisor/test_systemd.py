"""Notifications to systemd."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpol.supervisor.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        if request.param == "path":
            sock.bind(str(tmp_path / "notify"))
            name = str(tmp_path / "notify")
        else:
            sock.bind("")  # the kernel picks an abstract name
            name = "@" + sock.getsockname().decode().removeprefix("\0")
        sock.settimeout(5)
        yield sock, name


def test_notifier_sends_each_state(systemd: tuple[socket.socket, str]) -> None:
    sock, name = systemd
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready("2 workers")
    assert sock.recv(999) == b"READY=1\nSTATUS=2 workers"
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    first, stamp, status = sock.recv(999).decode().split("\n")
    assert (first, status) == ("RELOADING=1", "STATUS=loading the configuration")
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    notifier.stopping()
    assert sock.recv(999).startswith(b"STOPPING=1")
    notifier.alive()
    assert sock.recv(999) == b"WATCHDOG=1"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nonexistent/notify"}])
def test_notifier_without_a_socket_does_nothing(environ: dict[str, str]) -> None:
    Notifier(environ).ready("2 workers")


def test_notifier_does_not_block_when_systemd_does_not_read(systemd: tuple[socket.socket, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": systemd[1]})
    for _ in range(5000):
        notifier.alive()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog_interval_is_half_of_what_systemd_asks_for(environ: dict[str, str], interval: float | None) -> None:
    assert Notifier(environ).watchdog_interval == interval
