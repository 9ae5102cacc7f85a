"""What a process does for itself: become an ordinary user, hear the right signals, use the descriptors it may."""

import os
import pwd
import resource
import signal
from contextlib import suppress

from flashpol.config import ConfigError

# As many as the fast path has records for.
MAX_FILES = 1 << 20


def find_user(name: str) -> pwd.struct_passwd:
    """The account to become. Raises ConfigError if there is none, or if only root could become it and we are not."""
    try:
        user = pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise ConfigError(f"user {name!r}: there is no such user") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"user {name!r}: only root can become another user: start as root, or leave it out")
    return user


def become(user: pwd.struct_passwd) -> None:
    """For good: the saved ids go too."""
    if os.geteuid() == 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
        os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)


def enter_child(name: str, user: pwd.struct_passwd | None) -> None:
    """In a new child, once it has imported what it needs. `name` is what ps and top show of it (15 bytes at most)."""
    with suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(f"flashpol {name}")
    # Ctrl-C and a terminal that is closed reach the whole foreground group; the arbiter alone decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if user is not None:
        become(user)
    # SIGTERM waits until it is handled: a child told to stop while it starts still empties its accept queue.
    signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGTERM,))


def keep_standard_descriptors() -> None:
    """Open /dev/null in place of 0, 1 and 2 where they are closed: a socket there would be sent our log."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is fd


def raise_file_limit() -> None:
    """Use all the descriptors that are granted: the soft limit is 1,024 on most hosts, for the sake of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
