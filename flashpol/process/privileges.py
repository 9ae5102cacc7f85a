"""What a process does for itself: become an ordinary user, hear the right signals, use the descriptors it may."""

import ctypes
import grp
import os
import pwd
import resource
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flashpol.config import ConfigError, Server

# As many as the fast path has records for.
MAX_FILES = 1 << 20
# More than a child has before it serves: 1,024 listeners, and what their sockets were numbered in the arbiter.
_FEW_FILES = 1 << 16


T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """Who the children are: no user means as who the server was started, no group the user's own groups."""

    user: pwd.struct_passwd | None = None
    group: grp.struct_group | None = None
    root: Path | None = None

    @property
    def _groups(self) -> list[int]:
        """All that they belong to, the primary one first; none if that stays as it is."""
        if self.group:
            return [self.group.gr_gid]
        return os.getgrouplist(self.user.pw_name, self.user.pw_gid) if self.user else []

    @classmethod
    def of(cls, server: Server) -> "Identity":
        """Raises ConfigError if there is no such user, group or folder."""
        places = server.locations
        user = _look_up("user", server.user, pwd.getpwnam, places.get("user"))
        group = _look_up("group", server.group, grp.getgrnam, places.get("group"))
        if server.chroot is not None:
            chroot, place = f"chroot {str(server.chroot)!r}", places.get("chroot")
            if not server.chroot.is_dir():
                raise ConfigError(f"{chroot}: there is no such folder", place)
            if user is None:
                raise ConfigError(f"{chroot}: it does not hold root: set user too", place)
        return cls(user, group, server.chroot)

    def require_rights(self) -> None:
        """Raises ConfigError if it takes root to become this, and we are not."""
        if os.geteuid() == 0:
            return
        wanted = []
        if self.user and self.user.pw_uid != os.geteuid():
            wanted.append(f"user {self.user.pw_name!r}")
        if self.group and {self.group.gr_gid} != {os.getegid(), *os.getgroups()}:
            wanted.append(f"group {self.group.gr_name!r}")
        if self.root:
            wanted.append(f"chroot {str(self.root)!r}")
        if wanted:
            raise ConfigError(f"{wanted[0]}: only root can change that: start as root, or leave it out")

    def assume(self) -> None:
        """For good: saved ids and capabilities go too, and no program that is run could give any back."""
        privileged = os.geteuid() == 0
        groups = self._groups  # looked up while /etc is there
        if self.root is not None:
            os.chroot(self.root)
            os.chdir("/")
        if privileged and groups:
            os.setgroups(groups)
            os.setresgid(groups[0], groups[0], groups[0])
        if privileged and self.user:
            os.setresuid(self.user.pw_uid, self.user.pw_uid, self.user.pw_uid)
        _give_up_privileges()


def _look_up(what: str, name: str | None, find: Callable[[str], T], place: object) -> T | None:
    try:
        return find(name) if name is not None else None
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise ConfigError(f"{what} {name!r}: there is no such {what}", place) from None


# prctl(2) and capset(2); CPython has neither.
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522


def _give_up_privileges() -> None:
    """No new ones for anybody; and none at all, such as CAP_NET_BIND_SERVICE, for who is not root."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = [libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)]
    if os.geteuid() != 0:
        done.append(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        done.append(libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()))
    if any(done):
        raise OSError(ctypes.get_errno(), f"cannot give up privileges: {os.strerror(ctypes.get_errno())}")


def enter_child(name: str, identity: Identity) -> None:
    """In a new child, once it has imported what it needs. `name` is what ps and top show of it (15 bytes at most)."""
    with suppress(OSError), open("/proc/self/comm", "w") as comm:
        comm.write(f"flashpol {name}")
    # Ctrl-C and a terminal that is closed reach the whole foreground group; the arbiter alone decides what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    identity.assume()
    # SIGTERM waits until it is handled: a child told to stop while it starts still empties its accept queue.
    signal.pthread_sigmask(signal.SIG_SETMASK, (signal.SIGTERM,))


def has_terminal() -> bool:
    """We belong to a terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return True


def raise_file_limit() -> None:
    """Use all the descriptors that are granted: the soft limit is 1,024 on most hosts, for the sake of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def spare_memory() -> int | None:
    """Bytes of address space that this process may still ask for; None if it is not limited, or /proc out of reach."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError), open("/proc/self/statm", "rb") as file:
            return max(0, limit - int(file.read().split()[0]) * resource.getpagesize())
    return None


def count_files() -> int:
    """Descriptors that are open, of a process that has but a few."""
    with suppress(OSError):
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them
    # Out of reach, as in a chroot. It takes 30 ms, in which a successor does not serve yet.
    found = 0
    for fd in range(min(_FEW_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] % MAX_FILES)):
        with suppress(OSError):
            os.fstat(fd)
            found += 1
    return found
