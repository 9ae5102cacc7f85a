"""Writing files from commands: atomically, with their owner, and into no trap of another user."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flashpol.cli import pid_file
from flashpol.cli.files import overwrite, put, replace
from flashpol.config import ConfigError
from testkit.processes import as_nobody

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
TRAP = "of another user, in a folder into which all users may write"


@pytest.fixture(autouse=True)
def reachable(tmp_path: Path) -> None:
    """Other users may come as far as the test's folder."""
    if os.geteuid() == 0:
        for folder in (tmp_path, *tmp_path.parents[: tmp_path.parents.index(Path(tempfile.gettempdir()))]):
            folder.chmod(0o755)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder such as /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def link(path: Path, target: str | Path, owner: int = 0) -> Path:
    path.symlink_to(target)
    os.chown(path, owner, owner, follow_symlinks=False)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        replace(path, b"new")
    message = str(caught.value)
    assert message.startswith(f"{path}: cannot be written: ")
    assert "\n" not in message
    return message


# ---------------------------------------------------------------------------------------------------- symbolic links


@as_root
def test_replace_of_a_link_of_another_user_in_a_shared_folder_is_refused(tmp_path: Path, shared: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"old")
    trap = link(shared / "out.xml", secret, NOBODY)
    assert f"a symbolic link {TRAP}" in refusal(trap)
    assert f"a symbolic link {TRAP}" in refusal(link(tmp_path / "own", trap)), "also at the end of an own link"
    assert f"a symbolic link {TRAP}" in refusal(link(shared / "dangling", tmp_path / "none", NOBODY))
    assert secret.read_bytes() == b"old"
    assert not (tmp_path / "none").exists()


@as_root
@pytest.mark.parametrize(
    ("mode", "folder_owner", "link_owner", "follows"),
    [
        (0o1777, 0, 0, True),
        (0o1777, NOBODY, NOBODY, True),  # who owns the folder may do in it as they like
        (0o1777, NOBODY, 0, True),
        (0o1777, 0, NOBODY, False),
        (0o0777, 0, NOBODY, True),  # as the kernel decides
        (0o1775, 0, NOBODY, True),
        (0o0755, NOBODY, NOBODY, True),
    ],
)
def test_replace_follows_the_links_that_protected_symlinks_follows(
    tmp_path: Path, shared: Path, mode: int, folder_owner: int, link_owner: int, follows: bool
) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"old")
    path = link(shared / "link", real, link_owner)
    os.chown(shared, folder_owner, folder_owner)
    shared.chmod(mode)
    if follows:
        replace(path, b"new")
    else:
        refusal(path)
    assert real.read_bytes() == (b"new" if follows else b"old")
    assert path.is_symlink()


@as_root
def test_replace_of_a_file_of_another_user_in_a_shared_folder_is_refused(shared: Path) -> None:
    path = shared / "out.xml"
    path.write_bytes(b"old")
    os.chown(path, NOBODY, NOBODY)
    assert f"a file {TRAP}" in refusal(path)
    assert path.read_bytes() == b"old"
    assert as_nobody(lambda: replace(path, b"new")) == "None"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("target", ["real", "sub/../real", "sub/up", "second"])
def test_replace_follows_links_relative_to_their_folder(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "a"
    (folder / "sub").mkdir(parents=True)
    (folder / "real").write_bytes(b"old")
    (folder / "sub" / "up").symlink_to("../real")
    (folder / "second").symlink_to("real")
    (folder / "link").symlink_to(target)
    replace(folder / "link", b"new")
    assert (folder / "real").read_bytes() == b"new"
    assert sorted(os.listdir(folder)) == ["link", "real", "second", "sub"]


def test_replace_of_a_dangling_link_creates_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    replace(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_replace_of_a_link_to_itself_or_nowhere_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert refusal(tmp_path / "loop").endswith("Too many levels of symbolic links")
    (tmp_path / "lost").symlink_to("none/target")
    assert refusal(tmp_path / "lost").endswith("No such file or directory")
    (tmp_path / "folder").symlink_to("./")
    with pytest.raises(ConfigError, match="not a regular file"):
        replace(tmp_path / "folder", b"new")


# ------------------------------------------------------------------------------------------- owner, mode, other files


@as_root
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_replace_keeps_owner_group_and_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "out.xml"
    path.write_bytes(b"old")
    os.chown(path, NOBODY, 1234)
    path.chmod(mode)
    replace(path, b"new")
    found = path.stat()
    assert (path.read_bytes(), found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (b"new", NOBODY, 1234, mode)


@as_root
def test_replace_by_a_user_who_may_not_give_files_away_becomes_its_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    path = tmp_path / "out.xml"
    path.write_bytes(b"old")
    path.chmod(0o4755)
    assert as_nobody(lambda: replace(path, b"new")) == "None"
    assert (path.read_bytes(), path.stat().st_uid) == (b"new", NOBODY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o755, "no right of the owner before goes to the one after"


def test_replace_while_the_new_file_is_written_shows_it_to_no_one_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "out.xml", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    real: Callable[[int], None] = os.fsync

    def fsync(fd: int) -> None:
        [new] = tmp_path.glob(".*.new")
        seen.append((new.name, stat.S_IMODE(new.stat().st_mode)))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(2):
        replace(path, b"new")
    names, modes = zip(*seen, strict=True)
    assert modes == (0o600, 0o600)
    assert len(set(names)) == 2, "each time another name"


def test_replace_leaves_files_of_other_processes_alone(tmp_path: Path) -> None:
    other = tmp_path / f".out.xml.{os.getpid()}.new"  # that of a process with this number in another PID namespace
    other.write_bytes(b"its")
    replace(tmp_path / "out.xml", b"new")
    assert other.read_bytes() == b"its"


# ------------------------------------------------------------------------------------------------------------ pid file


def test_pid_file_replaces_a_link_instead_of_what_it_leads_to(tmp_path: Path) -> None:
    secret, path = tmp_path / "secret", tmp_path / "flashpol.pid"
    secret.write_bytes(b"old")
    path.symlink_to(secret)
    pid_file.write(path)
    assert secret.read_bytes() == b"old"
    assert (path.is_symlink(), pid_file.read(path)) == (False, os.getpid())
    assert os.listdir(tmp_path).count("flashpol.pid") == len(os.listdir(tmp_path)) - 1


def test_pid_file_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "flashpol.pid"
    path.write_text("1\n")
    with path.open() as before:
        pid_file.write(path)
        assert before.read() == "1\n"
    assert pid_file.read(path) == os.getpid()


@as_root
def test_pid_file_that_waits_for_its_user_in_a_folder_of_root_is_written(tmp_path: Path) -> None:
    path = tmp_path / "flashpol.pid"
    path.write_text("a long old text\n")
    os.chown(path, NOBODY, NOBODY)
    assert as_nobody(lambda: pid_file.write(path)) == "None"
    assert path.read_text().strip().isdecimal()
    secret = tmp_path / "secret"
    secret.write_bytes(b"old")
    os.chown(secret, NOBODY, NOBODY)
    trap = link(tmp_path / "link", secret, NOBODY)
    assert "Too many levels of symbolic links" in as_nobody(lambda: pid_file.write(trap))
    assert secret.read_bytes() == b"old"


@as_root
def test_overwrite_of_a_file_of_another_user_in_a_shared_folder_is_refused(shared: Path) -> None:
    path = shared / "flashpol.pid"
    path.write_bytes(b"old")
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(PermissionError, match=TRAP):
        overwrite(path, b"new")
    put(path, b"new")
    assert path.stat().st_uid == 0


def test_overwrite_of_a_fifo_neither_waits_nor_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device or address"):
        overwrite(tmp_path / "fifo", b"new")
    reading = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="not a regular file"):
        overwrite(tmp_path / "fifo", b"new")
    os.close(reading)
