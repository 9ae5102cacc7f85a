"""What a child does first, tried in children of the test."""

import contextlib
import dataclasses
import grp
import os
import pwd
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flashpol.config import ConfigError, Server
from flashpol.process.privileges import MAX_FILES, Identity, count_files, enter_child, raise_file_limit, spare_memory
from testkit.polling import eventually
from testkit.processes import Process, as_nobody, status

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextlib.contextmanager
def fork(main: Callable[[], object]) -> Iterator[Process]:
    """A child that does `main` and then waits for signals."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            main()
            os.write(writable, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(writable)
        assert os.read(readable, 1) == b"x", "main failed"
        child = Process.of(pid)
        assert child
        yield child
    finally:
        os.close(readable)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def signals(pid: int, field: str) -> set[signal.Signals]:
    mask = int(status(pid)[field], 16)
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


def identity(**settings: object) -> Identity:
    return Identity.of(dataclasses.replace(Server(), **settings))  # type: ignore[arg-type]


def test_who_is_there(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid())
    assert identity() == Identity()
    assert identity(user=me.pw_name).user == me
    assert identity(user=me.pw_name, group="root", chroot=tmp_path) == Identity(me, grp.getgrnam("root"), tmp_path)


@pytest.mark.parametrize("name", ["nobody-of-that-name", "", "a\0b", "a\nb", "x" * 5000])
@pytest.mark.parametrize("what", ["user", "group"])
def test_who_is_not_there(what: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no such {what}") as caught:
        identity(**{what: name})
    assert str(caught.value).startswith(f"{what} {name!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chroot": Path("/no/such/folder")}, "chroot '/no/such/folder': there is no such folder"),
        ({"user": "root", "chroot": Path("/dev/null")}, "chroot '/dev/null': there is no such folder"),
        ({"chroot": Path("/")}, "chroot '/': it does not hold root: set user too"),
    ],
)
def test_a_root_folder_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        identity(**settings)
    assert str(caught.value) == message


@as_root
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"user": "root"}, "user 'root'"),
        ({"group": "root"}, "group 'root'"),
        ({"user": "nobody", "chroot": Path("/")}, "chroot '/'"),
        ({"user": "nobody"}, None),
        ({"group": grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name}, None),
        ({}, None),
    ],
)
def test_only_root_can_become_another(settings: dict[str, object], wanted: str | None) -> None:
    identity(**settings).require_rights()
    said = as_nobody(lambda: identity(**settings).require_rights())
    refusal = f"ConfigError: {wanted}: only root can change that: start as root, or leave it out"
    assert said == (refusal if wanted else "None")


CAPABILITIES = ("CapEff", "CapPrm", "CapInh", "CapAmb")


@as_root
@pytest.mark.parametrize("group", [None, "daemon"])
def test_what_was_root_cannot_be_root_again(group: str | None, tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody")
    gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    tmp_path.chmod(0o755)

    def main() -> None:
        identity(user="nobody", group=group, chroot=tmp_path).assume()
        assert (os.listdir("/"), os.getcwd()) == ([], "/")
        assert os.getgroups() == [gid]
        for back in (os.setuid, os.seteuid, os.setgid, os.setegid):
            with pytest.raises(PermissionError):
                back(0)
        with pytest.raises(PermissionError):
            os.setgroups([0])

    with fork(main) as child:
        now = status(child.pid)
        assert now["Uid"].split() == [str(user.pw_uid)] * 4
        assert now["Gid"].split() == [str(gid)] * 4
        assert [int(now[name], 16) for name in CAPABILITIES] == [0] * 4
        assert now["NoNewPrivs"] == "1"


@as_root
def test_becoming_who_one_is_changes_nothing() -> None:
    user = pwd.getpwnam("nobody")
    assert as_nobody(lambda: identity(user="nobody").assume() or os.getresuid()) == str((user.pw_uid,) * 3)


def test_all_the_descriptors_that_are_granted_are_used() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    def main() -> None:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, MAX_FILES) if hard >= 0 else MAX_FILES, hard)

    try:
        with fork(main):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def enter() -> None:
    enter_child("worker 7", Identity())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))  # as a child does once it handles it


def test_a_child_hears_the_arbiter_and_not_the_terminal() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1))
    try:
        with fork(enter) as child:
            assert signals(child.pid, "SigBlk") == set()
            assert {signal.SIGINT, signal.SIGHUP} <= signals(child.pid, "SigIgn")
            assert signal.SIGTERM not in signals(child.pid, "SigIgn") | signals(child.pid, "SigCgt")
            assert Path(f"/proc/{child.pid}/comm").read_text() == "flashpol worker"[:15] + "\n"
            child.kill(signal.SIGINT)
            child.kill(signal.SIGTERM)
            eventually(lambda: not child.alive, "its end by SIGTERM")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_sigterm_waits_until_it_is_handled() -> None:
    with fork(lambda: enter_child("admin", Identity())) as child:
        child.kill(signal.SIGTERM)
        assert signals(child.pid, "SigBlk") == {signal.SIGTERM}
        assert child.alive


def test_descriptors_are_counted_where_proc_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: str) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    seen = count_files()
    assert seen > 2
    monkeypatch.setattr(os, "listdir", nowhere)
    assert count_files() == seen


def test_the_memory_that_is_left_is_known_where_it_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spare_memory() is None
    usual = int(status(os.getpid())["VmSize"].split()[0]) << 10
    monkeypatch.setattr(resource, "getrlimit", lambda _: (usual + (64 << 20),) * 2)
    spare = spare_memory()
    assert spare is not None
    assert abs(spare - (64 << 20)) < 16 << 20
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20,) * 2)
    assert spare_memory() == 0
