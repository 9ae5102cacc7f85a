"""--user: children that cannot become root again, and a parent that stays what it was."""

import os
import pwd
from pathlib import Path

import pytest

from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def test_children_become_the_user_for_good(nobody: pwd.struct_passwd, tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[server]\nuser = "nobody"\n')
    with Flashpol("-c", file, "--policy", POLICY, workers=2) as server:
        assert len(server.children) == 3
        for child in server.children:
            now = status(child.pid)
            assert now["Uid"].split() == [str(nobody.pw_uid)] * 4, "real, effective, saved, file system"
            assert now["Gid"].split() == [str(nobody.pw_gid)] * 4
            assert set(map(int, now["Groups"].split())) == set(os.getgrouplist("nobody", nobody.pw_gid))
            for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
                assert int(now[name], 16) == 0, name
        assert status(server.process.pid)["Uid"].split() == ["0"] * 4
        assert ask(server.place) == POLICY.read_bytes() + b"\0"
        server.counts(1, "replies_total")
        assert server.get("/metrics", Accept="application/openmetrics-text").status == 200
        assert server.complaints == []
        assert server.stop() == 0


# The port is fixed, so the address is one that no other program uses.
LOW_PORT = (f"127.8.{os.getpid() >> 8 & 255}.{os.getpid() & 255 | 1}", 843)


def test_low_port_is_bound_before_the_user_changes() -> None:
    with Flashpol("--policy", POLICY, "--user", "nobody", listen=("{}:{}".format(*LOW_PORT),)):
        assert ask(LOW_PORT) == POLICY.read_bytes() + b"\0"


def test_successor_of_a_killed_worker_becomes_the_user_too(nobody: pwd.struct_passwd) -> None:
    with Flashpol("--policy", POLICY, "--user", "nobody") as server:
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.metrics().total("worker_restarts_total") == 1 and server.up == 1, "a successor")
        [successor] = server.workers
        assert status(successor.pid)["Uid"].split() == [str(nobody.pw_uid)] * 4


def test_killed_arbiter_of_another_user_leaves_no_orphans() -> None:
    with Flashpol("--policy", POLICY, "--user", "nobody", workers=2) as server:
        children = server.children
        server.process.kill()
        eventually(lambda: not any(child.alive for child in children), "the end of all children")
