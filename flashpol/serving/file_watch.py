"""Watched files: has anything changed that the configuration was loaded from?

Comparing files again and again finds every way to change one: in place, by a rename, by a symbolic link that points
elsewhere (as Kubernetes swaps a ConfigMap), on any file system. The content counts: a touch changes nothing.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flashpol.config import ConfigError

# More bytes than any configuration or policy that can be loaded has.
MAX_BYTES = 1 << 24
# Bytes that are read at a time.
BLOCK = 1 << 16

Signature = tuple[tuple[str, object], ...]


def require_regular_file(path: Path) -> None:
    """Raises ConfigError for a FIFO, a device or a socket: opening it may block, and a reload could not read it again.

    A missing file is left to its reader, which says why.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}
    kind = kinds.get(stat.S_IFMT(mode))
    if kind:
        raise ConfigError(f"{path}: is {kind}; write a regular file, which a reload can read again")


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, and the contents of those that are folders."""
    for path in paths:
        yield path
        with suppress(OSError):
            yield from sorted(path.iterdir())


def signature(paths: Sequence[Path]) -> Signature:
    """Differs when a file may have changed; cheap."""

    def of(path: Path) -> object:
        try:
            found = path.stat()
        except OSError as error:
            return error.errno
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    return tuple((str(path), of(path)) for path in _files(paths))


def digest(paths: Sequence[Path]) -> bytes:
    """Differs when the content of a file has changed, or a file was added or removed."""
    total = hashlib.sha256()
    for path in _files(paths):
        content = b""
        with suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode):  # opening a device may do something
                content = _digest(path)
        total.update(os.fsencode(path) + b"\0" + content + b"\0")
    return total.digest()


def _digest(path: Path) -> bytes:
    """Of a regular file, as far as MAX_BYTES; nothing of a FIFO that has come in its place. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        content, left = hashlib.sha256(), MAX_BYTES
        while left > 0 and (block := os.read(fd, min(left, BLOCK))):
            content.update(block)
            left -= len(block)
        return content.digest()
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Snapshot:
    """Files and folders as they were at one moment."""

    paths: Sequence[Path] = ()
    signature: Signature = ()
    digest: bytes = b""

    @classmethod
    def of(cls, paths: Sequence[Path]) -> "Snapshot":
        return cls(tuple(paths), signature(paths), digest(paths))


@dataclass(frozen=True)
class Look:
    """Files as they are now. digest: None if they have not come to rest."""

    signature: Signature
    digest: bytes | None


class FileWatch:
    """Compares files with `snapshot`: what the last load read, or tried to read."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.names: list[str] = []  # of the last change: at most three, folders only if nothing in them differs
        self._moving: Signature | None = None  # the last signature, if it was new

    def adopt(self, snapshot: Snapshot) -> None:
        """Compare with this one from now on."""
        self.snapshot, self._moving = snapshot, None

    def changed(self) -> bool:
        """True once for each change, at the first call that finds the files as the call before: a program writes a
        file in pieces."""
        return self.judge(self.look())

    def look(self) -> Look:
        """Read what `judge` needs, and change nothing: this may be called in another process."""
        paths = self.snapshot.paths
        now = signature(paths)
        at_rest = now == self._moving and now != self.snapshot.signature
        return Look(now, digest(paths) if at_rest else None)

    def judge(self, look: Look) -> bool:
        """`changed`, by a look at the files."""
        now = look.signature
        if now == self.snapshot.signature:
            self._moving = None
            return False
        if look.digest is None:
            self._moving = now
            return False
        before = self.snapshot
        different = sorted({name for name, _ in set(now) ^ set(before.signature)})
        parents = {os.path.dirname(name) for name in different}
        self.names = [name for name in different if name not in parents][:3]
        self.adopt(Snapshot(before.paths, now, look.digest))
        return self.snapshot.digest != before.digest
