"""How many descriptors and how much memory a process may use."""

import os
import resource
from contextlib import suppress

# As many as the connection table has records for.
MAX_FILES = 1 << 20
# More than a child has open before it serves: 1,024 listeners, and the numbers that their sockets had in the arbiter.
_MAX_FILES_AT_START = 1 << 16


def raise_file_limit() -> None:
    """Raise the soft limit to the hard one: most hosts set the soft limit to 1,024, for the sake of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def spare_memory() -> int | None:
    """Bytes of address space that this process may still map; None if there is no limit, or no /proc."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError), open("/proc/self/statm", "rb") as file:
            return max(0, limit - int(file.read().split()[0]) * resource.getpagesize())
    return None


def count_files() -> int:
    """Open descriptors of a process that has only a few."""
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them
    # Without /proc, as in a chroot. It takes 30 ms, by which a successor starts later.
    found = 0
    for fd in range(min(_MAX_FILES_AT_START, resource.getrlimit(resource.RLIMIT_NOFILE)[0] % MAX_FILES)):
        with suppress(OSError):
            os.fstat(fd)
            found += 1
    return found
