"""What a process does for itself: become an ordinary user, hear the right signals, use the descriptors it may."""

import ctypes
import grp
import os
import pwd
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flashpol.config import ConfigError, Server

# As many as the fast path has records for.
MAX_FILES = 1 << 20


@dataclass(frozen=True)
class Identity:
    """Who the children are: no user means as who the server was started. `groups` are all they belong to then."""

    user: pwd.struct_passwd | None = None
    groups: tuple[int, ...] = ()  # the first is the primary one
    root: Path | None = None

    @classmethod
    def of(cls, server: Server) -> "Identity":
        """Raises ConfigError if there is no such user, group or folder, or if it takes root and we are not."""
        user = _find_user(server.user) if server.user is not None else None
        groups = os.getgrouplist(user.pw_name, user.pw_gid) if user else []
        if server.group is not None:
            groups = [_find_group(server.group)]
        if server.chroot is not None:
            if os.geteuid() != 0:
                raise ConfigError(f"chroot {server.chroot}: only root can change it: start as root, or leave it out")
            if not server.chroot.is_dir():
                raise ConfigError(f"chroot {server.chroot}: there is no such folder")
            if user is None:
                raise ConfigError(f"chroot {server.chroot}: it does not hold root: set user too")
        return cls(user, tuple(groups), server.chroot)

    def assume(self) -> None:
        """For good: saved ids and capabilities go too, and no program that is run could give any back."""
        privileged = os.geteuid() == 0
        if self.root is not None:
            os.chroot(self.root)
            os.chdir("/")
        if privileged and self.groups:
            first = self.groups[0]
            os.setgroups(self.groups)
            os.setresgid(first, first, first)
        if privileged and self.user:
            os.setresuid(self.user.pw_uid, self.user.pw_uid, self.user.pw_uid)
        _give_up_privileges()


def _find_user(name: str) -> pwd.struct_passwd:
    try:
        user = pwd.getpwnam(name)
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise ConfigError(f"user {name!r}: there is no such user") from None
    if os.geteuid() not in (0, user.pw_uid):
        raise ConfigError(f"user {name!r}: only root can become another user: start as root, or leave it out")
    return user


def _find_group(name: str) -> int:
    try:
        group = grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise ConfigError(f"group {name!r}: there is no such group") from None
    if os.geteuid() != 0 and os.getgroups() not in ([], [group]):
        raise ConfigError(f"group {name!r}: only root can change groups: start as root, or leave it out")
    return group


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
