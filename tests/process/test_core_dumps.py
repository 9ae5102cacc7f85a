"""Processes with private keys leave no core dump, and other processes of their user cannot read their memory."""

import ctypes
import os
import pwd
import resource
import shutil
from pathlib import Path

import pytest

from flashpol.process.core_dumps import forbid_core_dumps, is_dumpable
from flashpol.process.privileges import Privileges
from testkit.certificates import make_ca
from testkit.clients import ask
from testkit.folders import let_others_in
from testkit.polling import eventually
from testkit.processes import Flashpol, as_nobody, forked

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, and setpriv of util-linux"
)
PR_SET_DUMPABLE = 4  # prctl(2)
AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")


def core_limit(pid: int) -> str:
    [line] = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core")]
    return " ".join(line.split()[4:6])


def readable_by_nobody(pid: int) -> bool:
    """Whether a process of that user may read its memory; /proc/PID/environ has the same rule as /proc/PID/mem."""
    return as_nobody(lambda: len(Path(f"/proc/{pid}/environ").read_bytes()) > 0) == "True"


def test_forbidden_core_dumps_stay_forbidden_in_a_child_of_another_user() -> None:
    def main() -> None:
        forbid_core_dumps()
        Privileges(pwd.getpwnam("nobody")).drop()
        assert not is_dumpable()
        if os.fork() == 0:
            os._exit(is_dumpable())
        assert os.wait()[1] == 0

    with forked(main) as child:
        assert core_limit(child.pid) == "0 0"
        assert not readable_by_nobody(child.pid)


@pytest.mark.parametrize("forbidden", [False, True])
def test_drop_of_privileges_leaves_what_was_decided(forbidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel resets it when the user changes, to what fs.suid_dumpable says, which may be 1."""
    become = os.setresuid

    def become_on_such_a_host(*ids: int) -> None:
        become(*ids)
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)

    def main() -> None:
        monkeypatch.setattr(os, "setresuid", become_on_such_a_host)
        if forbidden:
            forbid_core_dumps()
        Privileges(pwd.getpwnam("nobody")).drop()
        assert is_dumpable() is not forbidden

    with forked(main):
        pass


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder whose files the user `nobody` can read."""
    let_others_in(tmp_path)
    return tmp_path


@pytest.mark.parametrize("encrypted", [False, True])
def test_server_with_a_certificate_keeps_its_memory_from_others_of_its_user(public: Path, encrypted: bool) -> None:
    pytest.importorskip("flashpol._tls", reason="built without OpenSSL")
    files = make_ca(public).issue("games.example.com")
    os.chown(files.key, pwd.getpwnam("nobody").pw_uid, -1)
    flags = ("--tls", f"{files.chain},{files.key}") if encrypted else ()
    unlimited = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))}
    with Flashpol("--allow", "*:1935", *flags, workers=2, under=AS_NOBODY, **unlimited) as server:
        processes = [server.process.pid, *(child.pid for child in server.children)]
        assert len(processes) == 4
        limits = {core_limit(pid) for pid in processes}
        assert limits == ({"0 0"} if encrypted else {"unlimited unlimited"})
        assert {readable_by_nobody(pid) for pid in processes} == {not encrypted}
        # The arbiter still reads what it needs of its children, and they of themselves.
        assert ask(server.place)
        eventually(lambda: server.metrics().total("worker_resident_memory_bytes") > 0, "what /proc says of workers")
        assert server.complaints == []
        assert server.stop() == 0
