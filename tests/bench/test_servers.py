"""Servers under test start, reply, and end with their context."""

from pathlib import Path

import pytest

from bench import BenchError, measure, servers
from testkit.clients import ask

POLICY = b'<cross-domain-policy><allow-access-from domain="peers.example" to-ports="1"/></cross-domain-policy>'


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_epoll_baseline_replies_with_the_policy_and_nul() -> None:
    with servers.epoll() as server:
        assert ask(("127.0.0.1", server.port)) == servers.POLICY.read_bytes() + b"\0"
    assert gone(server.pid)


def test_server_after_an_exception_in_its_context_is_ended() -> None:
    with pytest.raises(ZeroDivisionError), servers.epoll() as server:
        raise ZeroDivisionError
    assert gone(server.pid)


@pytest.mark.slow
@pytest.mark.parametrize("peer", servers.PEERS, ids=lambda peer: peer.name)
def test_peer_replies_with_the_policy_and_is_measured(peer: servers.Peer) -> None:
    missing = peer.missing()
    if missing:
        pytest.skip(missing)
    with peer.start(policy=POLICY) as server:
        assert server.name == peer.name
        assert ask(("127.0.0.1", server.port)) == POLICY + b"\0"
        before = measure.cpu_ns(server.pid)
        for _ in range(20):
            ask(("127.0.0.1", server.port))
        assert measure.cpu_ns(server.pid) > before
        assert measure.user_memory(server.pid) > 0
        assert server.started_in > 0
    assert gone(server.pid)
    assert gone(server.parent)


def test_flashpol_with_two_workers_and_three_listeners_serves_all_ports() -> None:
    with servers.flashpol(workers=2, listeners=3) as server:
        assert len(set(server.pids)) == 2
        assert len(set(server.ports)) == 3
        for port in server.ports:
            assert ask(("127.0.0.1", port)) == servers.POLICY.read_bytes() + b"\0"
        _, samples = measure.scrape(server.admin)
        assert sum(value for name, value in samples.items() if name.startswith("flashpol_replies_total")) >= 3
    assert all(map(gone, server.pids))


def test_measure_of_an_ended_process_raises() -> None:
    with servers.epoll() as server:
        pass
    for reading in (measure.cpu_ns, measure.user_memory, measure.sleeps, measure.open_files):
        with pytest.raises(BenchError, match="ended while it was measured"):
            reading(server.pid)
