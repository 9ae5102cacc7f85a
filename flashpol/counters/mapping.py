"""Memory that processes share, and of which each may write only its own part.

The arbiter makes a `SharedMapping` and writes all of it. A child that it forks calls `protect_all` once: from then on
every mapping is read-only in that process, but for the parts that it is to write. A write elsewhere ends the process
with SIGSEGV, and no call makes the memory writable again: it is a memfd with F_SEAL_FUTURE_WRITE, of which the kernel
maps nothing writable any more, not by mmap, not by mprotect.

Linux before 5.1 has no such seal, and RLIMIT_FSIZE may refuse a memfd. Then `protect_all` works too, and ends a process
that writes by mistake; one that is taken over can call mprotect.
"""

import ctypes
import fcntl
import mmap
import os
import weakref
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import NamedTuple

PAGE = mmap.PAGESIZE

# <sys/mman.h> and <linux/memfd.h>: Python 3.11 has no names for some of these.
_MAP_FIXED = 0x10
_MFD_NOEXEC_SEAL = 8  # Linux 6.3, which warns without it; refused before
_F_SEAL_FUTURE_WRITE = 0x10
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def whole_pages(size: int) -> int:
    """The size of the pages that so many bytes need: processes can share pages, not less."""
    return -(-size // PAGE) * PAGE


class Part(NamedTuple):
    """Whole pages of a mapping, from byte `start` to `end`."""

    mapping: "SharedMapping"
    start: int
    end: int


class SharedMapping:
    """`size` bytes, rounded up to whole pages, that forked processes share. They are zero at first."""

    def __init__(self, size: int) -> None:
        self._size = whole_pages(size)
        self._pages = mmap.mmap(-1, self._size)
        self.memory = memoryview(self._pages)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self._fd = _memfd(self._size)
        if self._fd is not None:
            self._close = weakref.finalize(self, os.close, self._fd)
            self._map(0, self._size, self._fd, mmap.PROT_READ | mmap.PROT_WRITE)
            with suppress(OSError):  # Linux before 5.1
                fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, _SEALS)
        _mappings.add(self)

    def part(self, start: int, size: int) -> Part:
        """What a child may write: `protect_all` leaves it as it is."""
        return Part(self, start, start + whole_pages(size))

    def protect(self, writable: Collection[Part]) -> None:
        """Make all but `writable` read-only, in this process and for good."""
        for start, end in self._between(writable):
            if self._fd is None:
                _check(_libc.mprotect(self._address + start, end - start, mmap.PROT_READ))
            else:
                self._map(start, end, self._fd, mmap.PROT_READ)
        if self._fd is not None:
            self._close()
            self._fd = None

    def _between(self, parts: Collection[Part]) -> Iterator[tuple[int, int]]:
        """What lies before, between and after the parts."""
        at = 0
        for _, start, end in sorted((each for each in parts if each.mapping is self), key=lambda each: each.start):
            if start > at:
                yield at, start
            at = end
        if self._size > at:
            yield at, self._size

    def _map(self, start: int, end: int, fd: int, protection: int) -> None:
        """Replace what is mapped there. The mmap object goes on owning the addresses, and unmaps them at its end."""
        at = self._address + start
        flags = mmap.MAP_SHARED | _MAP_FIXED
        _check(0 if _libc.mmap(at, end - start, protection, flags, fd, start) == at else -1)


# Of this process; a child inherits them all, also those of earlier generations.
_mappings: weakref.WeakSet[SharedMapping] = weakref.WeakSet()


def protect_all(writable: Collection[Part] = ()) -> None:
    """In a child, once: make every mapping read-only, but for the parts that this process is to write."""
    for mapping in list(_mappings):
        mapping.protect(writable)


def _memfd(size: int) -> int | None:
    """A file in memory; None where the system allows none."""
    for flags in (os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING):
        with suppress(OSError):
            fd = os.memfd_create("flashpol counters", flags)
            try:
                os.ftruncate(fd, size)
            except OSError:  # RLIMIT_FSIZE
                os.close(fd)
                return None
            return fd
    return None


def _check(result: int) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
