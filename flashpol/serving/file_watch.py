"""Watched files: has what the configuration was loaded from changed?

Looking at them again and again finds every way to change a file: in place, by a rename, by a symbolic link that points
elsewhere (as Kubernetes swaps a ConfigMap), on any file system. What counts is the content: a touch changes nothing.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

# Larger than any configuration or policy that could be loaded.
MAX_BYTES = 1 << 24

Signature = tuple[tuple[str, object], ...]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The paths, and what is in those that are folders."""
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
    """Differs when the content of a file, or which files there are, has changed."""
    total = hashlib.sha256()
    for path in _files(paths):
        content = b""
        with suppress(OSError):
            if stat.S_ISREG(os.stat(path).st_mode):  # a pipe would wait for somebody
                with path.open("rb") as file:
                    content = hashlib.sha256(file.read(MAX_BYTES)).digest()
        total.update(os.fsencode(path) + b"\0" + content + b"\0")
    return total.digest()


class Watch:
    """paths: says which files and folders were read the last time that the configuration was loaded, or was to be."""

    def __init__(self, paths: Callable[[], Sequence[Path]]) -> None:
        self._paths = paths
        self._seen: Signature = ()
        self._moving: Signature | None = None  # what was seen last, if that was new
        self._digest = b""

    def mark(self) -> None:
        """What there is now is what will be loaded."""
        self._seen, self._digest, self._moving = signature(self._paths()), digest(self._paths()), None

    def changed(self) -> bool:
        """Look. True once for each change, when it has not gone on since the last look: files are written in pieces."""
        now = signature(self._paths())
        if now == self._seen:
            self._moving = None
            return False
        if now != self._moving:
            self._moving = now
            return False
        before = self._digest
        self.mark()
        return self._digest != before
