"""What every child of the arbiter does first: die with its parent, hear signals, become an ordinary user."""

import ctypes
import os
import pwd
import resource
import signal

from flashpol.config import ConfigError

_PR_SET_PDEATHSIG = 1
# As many as the fast path has records for.
MAX_FILES = 1 << 20


def find_user(name: str) -> pwd.struct_passwd:
    """The account to become. Raises ConfigError if there is none, or if only root could become it and we are not."""
    try:
        user = pwd.getpwnam(name)
    except KeyError:
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


def enter_child(arbiter_pid: int, user: pwd.struct_passwd | None) -> None:
    """In a new child, before anything else. Exits if the arbiter is gone already."""
    # Ctrl-C reaches the whole foreground group; the arbiter alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if user is not None:
        become(user)
    # After the change of user, which clears it. SIGTERM, so that even a killed arbiter's workers finish what is inside.
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != arbiter_pid:
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_file_limit() -> None:
    """Use all the descriptors that are granted: the soft limit is 1,024 on most hosts, for the sake of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def report_ready() -> None:
    """Tell the arbiter to look at the shared memory."""
    os.kill(os.getppid(), signal.SIGUSR1)
