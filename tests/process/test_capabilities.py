"""Without root: one capability binds port 843, and neither the workers nor the admin process keep it."""

import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import POLICY, ROOT, Flashpol, command, one_line, status

# The port is fixed, so the address is one that no other program uses.
PLACE = (f"127.9.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}", 843)
# The second one lets the user nobody read Python and this folder, wherever they are.
NAMES = ("net_bind_service", "dac_read_search")
BITS = 1 << 10 | 1 << 2  # capabilities(7)
NET_ADMIN, NET_RAW = 1 << 12, 1 << 13


def setpriv(*names: str) -> tuple[str, ...]:
    """Run a program as nobody, with these capabilities and no others."""
    changes = ",".join(("-all", *(f"+{name}" for name in names)))
    return ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
            f"--inh-caps={changes}", f"--ambient-caps={changes}", f"--bounding-set={changes}")  # fmt: skip


SETPRIV = setpriv(*NAMES)

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a capability"),
    pytest.mark.skipif(not shutil.which("setpriv"), reason="no setpriv: apt-get install util-linux"),
]


def capabilities(pid: int) -> dict[str, int]:
    now = status(pid)
    return {name: int(now[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Inh", "Amb")}


def test_capabilities_are_kept_by_the_arbiter_alone() -> None:
    nobody = str(pwd.getpwnam("nobody").pw_uid)
    with Flashpol("--policy", POLICY, listen=("{}:{}".format(*PLACE),), workers=2, under=SETPRIV) as server:
        assert ask(PLACE) == POLICY.read_bytes() + b"\0"
        assert set(capabilities(server.process.pid).values()) == {BITS}
        assert len(server.children) == 3
        for pid in (server.process.pid, *(child.pid for child in server.children)):
            assert status(pid)["Uid"].split() == [nobody] * 4
        for child in server.children:
            assert set(capabilities(child.pid).values()) == {0}
            assert status(child.pid)["NoNewPrivs"] == "1"

        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "the reload")
        for worker in eventually(lambda: len(server.workers) == 2 and server.workers, "the old workers' end"):
            assert set(capabilities(worker.pid).values()) == {0}, "nor do those that a reload starts"
        assert ask(PLACE) == POLICY.read_bytes() + b"\0"
        assert server.stop() == 0


@pytest.fixture
def transparent(tmp_path: Path) -> Path:
    """A configuration whose sessions connect from the addresses of their clients."""
    path = tmp_path / "flashpol.toml"
    path.write_text(
        "[policies.p]\ngrants = [{domain = '*', ports = '7000'}]\n[[listeners]]\naddress = '127.0.0.1:0'\n"
        "upstream = '127.0.0.1:1'\nupstream_source = 'client'\n"
    )
    return path


@pytest.mark.parametrize(
    ("names", "kept"),
    [(("net_raw",), NET_RAW), (("net_admin",), NET_ADMIN), (("net_raw", "net_admin", "net_bind_service"), NET_RAW)],
)
def test_capability_for_addresses_of_clients_is_kept_by_the_workers(
    transparent: Path, names: tuple[str, ...], kept: int
) -> None:
    """By no other process, and also by workers that a reload starts."""
    with Flashpol("-c", transparent, listen=(), under=setpriv(*names, "dac_read_search")) as server:
        [worker] = server.workers
        assert capabilities(worker.pid) == {"Prm": kept, "Eff": kept, "Inh": 0, "Amb": 0}
        assert server.admin
        assert set(capabilities(server.admin.pid).values()) == {0}
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: " reloaded: " in server.log, "the reload")
        [worker] = eventually(lambda: len(server.workers) == 1 and server.workers, "the old worker's end")
        assert capabilities(worker.pid)["Eff"] == kept
        assert status(worker.pid)["NoNewPrivs"] == "1"
        assert server.stop() == 0


def test_start_without_the_capability_for_addresses_of_clients_is_refused(transparent: Path) -> None:
    done = subprocess.run(
        [*setpriv(*NAMES), *command("serve", "-c", transparent)],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert one_line(done) == (
        f'{transparent}:6:1: upstream_source = "client" takes the capability CAP_NET_RAW, which flashpol was not '
        "started with: start it as root with user set, or with AmbientCapabilities=CAP_NET_RAW in its systemd unit, as "
        "in deploy/systemd/client-address.conf"
    )


def test_children_of_root_have_no_new_privs() -> None:
    with Flashpol("--policy", POLICY) as server:
        assert [status(child.pid)["NoNewPrivs"] for child in server.children] == ["1", "1"]
