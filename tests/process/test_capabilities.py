"""Without root: one capability binds port 843, and neither the workers nor the admin process keep it."""

import os
import pwd
import shutil
import signal

import pytest

from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, status

# The port is fixed, so the address is one that no other program uses.
PLACE = (f"127.9.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}", 843)
# The second one lets the user nobody read Python and this folder, wherever they are.
NAMES = ("net_bind_service", "dac_read_search")
BITS = 1 << 10 | 1 << 2  # capabilities(7)
CHANGES = ",".join(("-all", *(f"+{name}" for name in NAMES)))
SETPRIV = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
           f"--inh-caps={CHANGES}", f"--ambient-caps={CHANGES}", f"--bounding-set={CHANGES}")  # fmt: skip

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


def test_children_of_root_have_no_new_privs() -> None:
    with Flashpol("--policy", POLICY) as server:
        assert [status(child.pid)["NoNewPrivs"] for child in server.children] == ["1", "1"]
