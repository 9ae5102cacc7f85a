"""Servers under test are started, answered by, and ended without a trace."""

from pathlib import Path

import pytest

from bench import BenchError, measure, servers

POLICY = b'<cross-domain-policy><allow-access-from domain="peers.example" to-ports="1"/></cross-domain-policy>'


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


@pytest.mark.parametrize("peer", servers.PEERS, ids=lambda peer: peer.name)
def test_every_peer_answers_exactly_the_same_and_is_measured(peer: servers.Peer) -> None:
    missing = peer.missing()
    if missing:
        pytest.skip(missing)
    with peer.start(policy=POLICY) as server:
        assert server.name == peer.name
        assert measure.ask(server.port) == POLICY + b"\0"
        before = measure.cpu_ns(server.pid)
        for _ in range(20):
            measure.ask(server.port)
        assert measure.cpu_ns(server.pid) > before
        assert measure.user_memory(server.pid) > 0
        assert server.started_in > 0
    assert gone(server.pid)
    assert gone(server.parent)


def test_flashpol_with_workers_and_listeners() -> None:
    with servers.flashpol(workers=2, listeners=3) as server:
        assert len(set(server.pids)) == 2
        assert len(set(server.ports)) == 3
        for port in server.ports:
            assert measure.ask(port) == servers.POLICY.read_bytes() + b"\0"
        _, samples = measure.scrape(server.admin)
        assert sum(value for name, value in samples.items() if name.startswith("flashpol_replies_total")) >= 3
    assert all(map(gone, server.pids))


def test_a_process_that_is_gone_is_an_error_not_a_figure() -> None:
    with servers.epoll() as server:
        pass
    for reading in (measure.cpu_ns, measure.user_memory, measure.sleeps, measure.open_files):
        with pytest.raises(BenchError, match="ended while it was measured"):
            reading(server.pid)
