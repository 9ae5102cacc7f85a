"""A short attack from end to end, and a soak; both fail if the server's account is incomplete."""

import os
import signal
import subprocess
import sys

import pytest

from faults import soak
from faults.attack import Attack, AttackRun
from faults.attacks import ATTACKS
from faults.measure import Lengths, measure, measure_bystander
from faults.network import Firewall
from faults.report import lost
from testkit.processes import ROOT

DROPPED = """
import socket
from bench.isolation import isolate
from faults.network import Firewall
assert not isolate()
listener = socket.create_server(("127.0.0.1", 0))
good, bad = (socket.create_connection(listener.getsockname(), 5, (source, 0)) for source in ("127.2.0.1", "127.16.0.1"))
ends = {end.getpeername()[0]: end for end in (listener.accept()[0], listener.accept()[0])}
with Firewall():
    for end in ends.values():
        end.sendall(b"x")
    assert good.recv(1) == b"x"
    bad.settimeout(0.3)
    try:
        assert not bad.recv(1)
    except TimeoutError:
        pass
bad.settimeout(10)
assert bad.recv(1) == b"x", "sent again after the firewall is removed"
"""
pytestmark = pytest.mark.servers
SHORT = Lengths(0.5, 0.5, 0.5)


def test_attacks_have_unique_names_and_docstrings() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.run.__doc__ for attack in ATTACKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reset-storm", "max-connections", "worker-killed"])
def test_attack_in_short_loses_no_reply_and_accounts_for_all(name: str) -> None:
    [attack] = [attack for attack in ATTACKS if attack.name == name]
    outcome = measure(attack, SHORT, rate=100.0)
    assert outcome.requests > 50
    assert outcome.load
    assert lost(outcome) == []


@pytest.mark.slow
def test_bystander_of_a_killed_server_is_not_affected() -> None:
    """Its clients get replies while the attacked server has no worker."""

    def kill_all(run: AttackRun) -> None:
        for pid in run.server.workers:
            os.kill(pid, signal.SIGKILL)
        run.wait()

    assert 0 < measure_bystander(Attack("all-killed", kill_all), SHORT, rate=100.0) < 3


@pytest.mark.slow
def test_soak_for_a_second_counts_as_the_server_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line for line in soak.soak(1.0) if "memory" not in line] == []  # too short to judge memory
    assert "connections in 1 s" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can create a network namespace")
def test_firewall_in_a_namespace_drops_only_the_attackers() -> None:
    """In a child process, since this one must keep its network."""
    if not Firewall.available():
        pytest.skip("nft is not installed: apt-get install nftables")
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
