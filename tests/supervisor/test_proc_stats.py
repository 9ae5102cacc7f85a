"""What the kernel says of a process."""

import os
import time

import pytest

from flashpol.supervisor.proc_stats import Usage
from testkit.processes import Process, stat


def test_usage_of_a_process_says_when_it_started() -> None:
    usage = Usage.of(os.getpid())
    assert usage
    with open("/proc/uptime") as file:
        since_boot = float(file.read().split()[0])
    age = since_boot - int(stat(os.getpid())[19]) / os.sysconf("SC_CLK_TCK")
    # Both ends are rounded: btime to a second, the start to a tick.
    assert time.time() - age == pytest.approx(usage.started_ms / 1000, abs=2.5)


def test_usage_grows_with_cpu_time_and_memory() -> None:
    before = Usage.of(os.getpid())
    assert before
    deadline = time.process_time() + 0.1
    while time.process_time() < deadline:
        pass
    after = Usage.of(os.getpid())
    assert after
    assert after.cpu_ns - before.cpu_ns >= 80_000_000
    assert after.resident_bytes > 1_000_000


def test_usage_of_an_ended_process_is_none() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert Process.of(pid) is None
    assert Usage.of(pid) is None
    assert Usage.of(-1) is None
