"""A short attack from end to end, and a soak; both fail if the server's account is not complete."""

import os
import signal
import subprocess
import sys

import pytest

from faults import soak
from faults.families import ATTACKS
from faults.measure import Lengths, measure, measure_bystander
from faults.network import Firewall
from faults.report import lost
from faults.scene import Attack, Scene
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
assert bad.recv(1) == b"x", "sent again when the firewall is gone"
"""
pytestmark = pytest.mark.servers
SHORT = Lengths(0.5, 0.5, 0.5)


def test_names_are_unique_and_each_says_what_it_is() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.run.__doc__ for attack in ATTACKS)


@pytest.mark.parametrize("name", ["reset-storm", "no-places", "worker-killed"])
def test_nothing_is_lost(name: str) -> None:
    [attack] = [attack for attack in ATTACKS if attack.name == name]
    outcome = measure(attack, SHORT, rate=100.0)
    assert outcome.asked > 50
    assert outcome.load
    assert lost(outcome) == []


def test_a_bystander_is_another_server() -> None:
    """Its clients are well while all workers of the one that is attacked are gone."""

    def kill_all(scene: Scene) -> None:
        for pid in scene.server.workers:
            os.kill(pid, signal.SIGKILL)
        scene.wait()

    assert 0 < measure_bystander(Attack("all-killed", kill_all), SHORT, rate=100.0) < 3


def test_a_soak_counts_what_the_server_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line for line in soak.soak(1.0) if "memory" not in line] == []  # too short to judge memory by
    assert "connections in 1 s" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network of its own")
def test_in_a_network_of_our_own_the_firewall_drops_the_attackers_and_nobody_else() -> None:
    """In a child: this process keeps its network."""
    if not Firewall.available():
        pytest.skip("nft is not installed: apt-get install nftables")
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
