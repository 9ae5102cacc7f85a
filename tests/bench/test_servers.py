"""Servers under test are started, answered by, and ended without a trace."""

from pathlib import Path

import pytest

from bench import BenchError, measure, servers


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_the_yardstick_answers_with_the_policy_and_a_nul() -> None:
    with servers.epoll() as server:
        assert measure.ask(server.port) == servers.POLICY.read_bytes() + b"\0"
    assert gone(server.pid)


def test_a_server_is_ended_when_the_run_fails() -> None:
    with pytest.raises(ZeroDivisionError), servers.epoll() as server:
        raise ZeroDivisionError
    assert gone(server.pid)


@pytest.mark.skipif(servers.nginx_program() is None, reason="nginx is not installed")
def test_nginx_answers_exactly_the_same_and_its_worker_is_measured() -> None:
    with servers.nginx() as server:
        assert measure.ask(server.port) == servers.POLICY.read_bytes() + b"\0"
        before = measure.cpu_ns(server.pid)
        for _ in range(20):
            measure.ask(server.port)
        assert measure.cpu_ns(server.pid) > before
        assert measure.user_memory(server.pid) > 0
    assert gone(server.pid)


def test_a_process_that_is_gone_is_an_error_not_a_figure() -> None:
    with servers.epoll() as server:
        pass
    for reading in (measure.cpu_ns, measure.user_memory, measure.sleeps, measure.open_files):
        with pytest.raises(BenchError, match="ended while it was measured"):
            reading(server.pid)
