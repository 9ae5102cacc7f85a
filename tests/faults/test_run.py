"""A short attack from end to end, and a soak; both fail if the server's account is incomplete."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace

import pytest

from faults import soak
from faults.attack import Attack, AttackRun
from faults.attacks import ATTACKS
from faults.build import has_tls
from faults.measure import Lengths, measure
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
FEW_PORTS = """
import socket
from bench.isolation import isolate
from faults.network import ELSEWHERE, add_elsewhere, limit_local_ports, usual_local_ports
assert not isolate()
add_elsewhere()
add_elsewhere()
listener = socket.create_server((ELSEWHERE, 0))
with usual_local_ports():
    limit_local_ports(2)
    held = [socket.create_connection(listener.getsockname(), 5) for _ in range(2)]
    try:
        raise SystemExit(f"a third port: {socket.create_connection(listener.getsockname(), 5)}")
    except OSError:
        pass
socket.create_connection(listener.getsockname(), 5).close()
"""
SMALL_BUFFERS = """
import socket
from bench.isolation import isolate
from faults.network import SEND_BUFFERS, small_send_buffers
assert not isolate()
usual = SEND_BUFFERS.read_text()
listener = socket.create_server(("127.0.0.1", 0))
with small_send_buffers():
    client = socket.create_connection(listener.getsockname(), 5)
    client.settimeout(0.2)
    try:
        while True:
            client.send(bytes(1 << 16))
    except TimeoutError:
        pass
assert client.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 1 << 16
assert SEND_BUFFERS.read_text() == usual
"""
pytestmark = pytest.mark.servers
SHORT = Lengths(0.5, 0.5, quick=True)


def test_attacks_have_unique_names_and_docstrings() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.run.__doc__ for attack in ATTACKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reset-storm", "max-connections", "worker-killed", "lingering"])
def test_attack_in_short_loses_no_reply_and_accounts_for_all(name: str) -> None:
    [attack] = [attack for attack in ATTACKS if attack.name == name]
    outcome = measure(replace(attack, quick=0.5), SHORT)
    assert all(place.requests > 50 for place in outcome.places)
    assert {place.place for place in outcome.places} == {row.place for row in attack.rows}
    assert outcome.load
    assert lost(outcome) == []


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not has_tls(), reason="needs a build with TLS")
@pytest.mark.parametrize("name", ["handshake-flood", "truncated-streams", "idle-tls"])
def test_attack_on_tls_in_short_loses_no_reply_and_accounts_for_all(name: str) -> None:
    [attack] = [attack for attack in ATTACKS if attack.name == name]
    outcome = measure(replace(attack, quick=0.5), SHORT)
    assert all(place.requests > 20 for place in outcome.places)
    assert {place.place for place in outcome.places} == {row.place for row in attack.rows}
    assert "MB of memory" in outcome.load
    assert lost(outcome) == []


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.skipif(not has_tls(), reason="needs a build with TLS")
@pytest.mark.parametrize("name", ["half-heads", "strange-origins", "compressed-bombs"])
def test_attack_by_http_in_short_loses_no_reply_and_accounts_for_all(name: str) -> None:
    [attack] = [attack for attack in ATTACKS if attack.name == name]
    outcome = measure(replace(attack, quick=0.5), SHORT)
    assert all(place.requests > 10 for place in outcome.places)
    assert {place.place for place in outcome.places} == {row.place for row in attack.rows}
    assert "MB of memory" in outcome.load
    assert lost(outcome) == []


@pytest.mark.slow
def test_attack_that_leaves_a_connection_open_or_misses_a_requirement_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faults.measure.SETTLE_SECONDS", 0.3)
    with ExitStack() as held:

        def hold(run: AttackRun) -> None:
            held.enter_context(socket.create_connection(("127.0.0.1", run.server.port), 5))
            run.require("apples", 5, 4)
            run.require("pears", 4, 4)
            run.wait()

        outcome = measure(Attack("hold", hold, quick=0.5), SHORT)
    assert outcome.missed == (
        "5 apples, at most 4 expected", "1 connections are open 0 s later, without any client",
    )  # fmt: skip
    assert outcome.unaccounted == 1


@pytest.mark.slow
def test_bystander_of_a_killed_server_is_not_affected() -> None:
    """Its clients get replies while the attacked server has no worker."""

    def kill_all(run: AttackRun) -> None:
        for pid in run.server.workers:
            os.kill(pid, signal.SIGKILL)
        run.wait()

    outcome = measure(Attack("all-killed", kill_all, quick=0.5), SHORT, bystander=True)
    assert outcome.bystander
    assert outcome.bystander.requests > 50
    assert outcome.bystander.lost == 0


@pytest.mark.slow
def test_soak_for_a_second_counts_as_the_server_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line for line in soak.soak(1.0) if "memory" not in line] == []  # too short to judge memory
    assert "connections in 1 s" in capsys.readouterr().out


def in_namespace(program: str) -> None:
    """Run it in a child process, since this one must keep its network."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this container may not create a namespace")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_firewall_in_a_namespace_drops_only_the_attackers() -> None:
    if not Firewall.available():
        pytest.skip("nft is not installed: apt-get install nftables")
    in_namespace(DROPPED)


def test_send_buffers_of_a_namespace_are_small_in_the_context() -> None:
    in_namespace(SMALL_BUFFERS)


def test_local_ports_of_a_namespace_run_out_at_their_limit() -> None:
    in_namespace(FEW_PORTS)
