"""Writing files from commands: whole or not at all, and in a folder such as /tmp into no trap of another user.

Such a folder is sticky, and all users may write into it. A symbolic link there can lead anywhere, and a file there may
be one that its owner goes on writing. So what belongs to another user there is refused, as the kernel does for open(2)
with fs.protected_symlinks and fs.protected_regular. All steps use the descriptor of the folder that was looked at.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flashpol.config import ConfigError

# Symbolic links in a row, as the kernel counts them.
MAX_LINKS = 40


class Entry(NamedTuple):
    """A name in a folder, which is open as `folder`, and what is there: None for nothing."""

    folder: int
    name: str
    found: os.stat_result | None


def replace(path: Path, data: bytes) -> None:
    """Replace the contents of a file atomically: readers see the old or the new file, and a failure leaves the old one.

    The file keeps its permissions, and its owner and group where this user may give files away; a symbolic link remains
    one. Raises ConfigError.
    """
    try:
        with _resolved(path) as entry:
            if entry.found and not stat.S_ISREG(entry.found.st_mode):
                raise ConfigError(f"{path}: not a regular file; omit -o to write to standard output")
            _put(entry, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def put(path: Path, data: bytes) -> None:
    """Write a new file in place of what is at `path`; a symbolic link is replaced too. Raises OSError."""
    with _open_folder(path.parent) as folder:
        _put(Entry(folder, path.name, None), data)


def overwrite(path: Path, data: bytes) -> None:
    """Write into the regular file at `path`, which is no symbolic link. Raises OSError."""
    with _open_folder(path.parent) as folder:
        fd = os.open(path.name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(fd, "wb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            _require_trusted(folder, found)
            os.truncate(fd, 0)
            file.write(data)


@contextlib.contextmanager
def _open_folder(path: str | Path, folder: int | None = None) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _resolved(path: Path) -> Iterator[Entry]:
    """Where the symbolic links at `path` lead."""
    with contextlib.ExitStack() as opened:
        folder, name = opened.enter_context(_open_folder(path.parent)), path.name or "."
        for _ in range(MAX_LINKS):
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                found = None
            if found:
                _require_trusted(folder, found)
            if not found or not stat.S_ISLNK(found.st_mode):
                yield Entry(folder, name, found)
                return
            target, name = os.path.split(os.readlink(name, dir_fd=folder))
            folder, name = opened.enter_context(_open_folder(target or ".", folder)), name or "."
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _require_trusted(folder: int, found: os.stat_result) -> None:
    """Raises OSError."""
    around = os.fstat(folder)
    shared = around.st_mode & stat.S_ISVTX and around.st_mode & stat.S_IWOTH
    if shared and found.st_uid not in (os.geteuid(), around.st_uid):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "a file"
        raise OSError(errno.EACCES, f"it is {what} of another user, in a folder into which all users may write")


def _put(entry: Entry, data: bytes) -> None:
    folder, name, found = entry
    new = f".{os.urandom(12).hex()}.new"  # no other process has this name, also none in another PID namespace
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(new, flags, 0o600 if found else 0o666, dir_fd=folder), "wb") as file:
            file.write(data)
            file.flush()
            if found:
                _make_like(file.fileno(), found)
            os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with contextlib.suppress(OSError):  # it was renamed if all went well
            os.unlink(new, dir_fd=folder)


def _make_like(fd: int, found: os.stat_result) -> None:
    now = os.fstat(fd)
    for user, group in ((found.st_uid, -1), (-1, found.st_gid)):
        if (user, group) not in ((now.st_uid, -1), (-1, now.st_gid)):
            with contextlib.suppress(PermissionError):  # only root may give files away
                os.fchown(fd, user, group)
    os.fchmod(fd, stat.S_IMODE(found.st_mode) & 0o777)
