"""Root at first; then a user, one group and an empty folder as the root of all that the children can see."""

import grp
import json
import os
import pwd
import signal
import socket
from pathlib import Path

import pytest

from testkit.clients import ask, connect
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, status

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root folder")

GROUP = "daemon"  # to which the user `nobody` does not belong
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


def confinement(pid: int) -> dict[str, object]:
    """What a child is; nothing if it has ended."""
    try:
        now = status(pid)
        return {
            "users": set(now["Uid"].split()),
            "groups": {*now["Gid"].split(), *now["Groups"].split()},
            "capabilities": {int(now[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Inh", "Amb")},
            "no new privileges": now["NoNewPrivs"],
            "folders": {os.readlink(f"/proc/{pid}/{link}") for link in ("root", "cwd")},
        }
    except (FileNotFoundError, ProcessLookupError):
        return {}


def confined(server: Flashpol, site: Path, count: int) -> None:
    """Wait until there are so many children, and all of them are: one that has just been forked is not yet."""
    wanted = {
        "users": {str(pwd.getpwnam("nobody").pw_uid)},
        "groups": {str(grp.getgrnam(GROUP).gr_gid)},
        "capabilities": {0},
        "no new privileges": "1",
        "folders": {str(site / "empty")},
    }
    eventually(lambda: [confinement(child.pid) for child in server.children] == [wanted] * count, "confined children")


def test_server_in_an_empty_chroot_serves_reloads_and_reports(site: Path) -> None:
    with Flashpol("-c", site / "flashpol.toml", workers=2) as server:
        confined(server, site, 3)
        assert ask(server.place) == GRANT.format(1935).encode() + b"\0"
        assert server.get("/").status == 200
        assert server.get("/metrics", Accept="application/openmetrics-text").status == 200
        server.counts(1, "replies_total")
        # From /proc, which is not in the folder: the arbiter looks there.
        eventually(lambda: server.metrics().total("worker_resident_memory_bytes") > 1 << 20, "the kernel's figures")
        assert server.metrics().total("worker_open_files", worker="1") > 0

        (site / "policy.xml").write_text(GRANT.format(1936))
        assert server.get("/-/reload", "POST").status == 200
        assert ask(server.place) == GRANT.format(1936).encode() + b"\0"
        confined(server, site, 3)
        assert [line.split(": ")[1] for line in server.log.splitlines()] == ["ready", "reloaded"]

        (site / "policy.xml").write_text("<oops")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "not reloaded" in server.log, "the reason")
        server.counts(0, "config_last_reload_successful")
        assert server.stop() == 0


def test_successor_of_a_killed_worker_is_confined_too(site: Path) -> None:
    with Flashpol("-c", site / "flashpol.toml") as server:
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.metrics().total("worker_restarts_total") == 1 and server.up == 1, "a successor")
        confined(server, site, 2)
        server.logs("SIGKILL")


def test_upstream_name_in_a_chroot_with_a_hosts_file_is_resolved(site: Path) -> None:
    """The resolver's modules cannot be imported there, so they are imported before."""
    (site / "empty" / "etc").mkdir()
    (site / "empty" / "etc" / "hosts").write_text("127.0.0.1 backend.example\n")
    config = site / "flashpol.toml"
    with socket.create_server(("127.0.0.1", 0)) as backend:
        config.write_text(
            config.read_text() + '[[listeners]]\nname = "shared"\naddress = "127.0.0.1:0"\n'
            f'upstream = "backend.example:{backend.getsockname()[1]}"\n'
        )
        with Flashpol("-c", config, listen=()) as server, connect(server.place, b"hello\n"):
            backend.settimeout(DEADLINE)
            session, _ = backend.accept()
            with session:
                assert session.recv(100) == b"hello\n"
