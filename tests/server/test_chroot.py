"""Root at first; then a user, one group and an empty folder as the root of all that the children can see."""

import grp
import json
import os
import pwd
import signal
from pathlib import Path

import pytest
from processes import Flashpol, Process, ask, status, until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root folder")

GROUP = "daemon"  # which nobody does not belong to
GRANT = '<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="{}"/></cross-domain-policy>'


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    (tmp_path / "policy.xml").write_text(GRANT.format(1935))
    (tmp_path / "flashpol.toml").write_text(
        f'[server]\nuser = "nobody"\ngroup = "{GROUP}"\nchroot = {json.dumps(str(tmp_path / "empty"))}\n'
        'reload_endpoint = true\n[policies.main]\nfile = "policy.xml"\n'
    )
    return tmp_path


def confined(child: Process, site: Path) -> None:
    nobody, group = pwd.getpwnam("nobody"), grp.getgrnam(GROUP)
    now = status(child.pid)
    assert now["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert now["Gid"].split() == [str(group.gr_gid)] * 4
    assert now["Groups"].split() == [str(group.gr_gid)]
    assert {int(now[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Inh", "Amb")} == {0}
    assert now["NoNewPrivs"] == "1"
    for link in ("root", "cwd"):
        assert os.readlink(f"/proc/{child.pid}/{link}") == str(site / "empty")


def test_all_works_in_an_empty_folder(site: Path) -> None:
    with Flashpol("-c", site / "flashpol.toml", workers=2) as server:
        assert len(server.children) == 3
        for child in server.children:
            confined(child, site)
        assert ask(server.place) == GRANT.format(1935).encode() + b"\0"
        assert server.get("/").status == 200
        assert server.get("/metrics", Accept="application/openmetrics-text").status == 200
        assert server.metrics().total("replies_total") == 1

        (site / "policy.xml").write_text(GRANT.format(1936))
        assert server.get("/-/reload", "POST").status == 200
        assert ask(server.place) == GRANT.format(1936).encode() + b"\0"
        until(lambda: len(server.workers) == 2, "the old workers' end")
        for child in server.children:
            confined(child, site)
        assert server.log.count("\n") == server.log.count(" reloaded: ") == 1

        (site / "policy.xml").write_text("<oops")
        server.process.send_signal(signal.SIGHUP)
        until(lambda: "not reloaded" in server.log, "the reason")
        assert server.metrics().total("config_last_reload_successful") == 0
        assert server.stop() == 0


def test_a_successor_is_confined_too(site: Path) -> None:
    with Flashpol("-c", site / "flashpol.toml") as server:
        [worker] = server.workers
        worker.kill()
        until(lambda: server.metrics().total("worker_restarts_total") == 1 and server.up == 1, "a successor")
        for child in server.children:
            confined(child, site)
        assert "SIGKILL" in server.log
