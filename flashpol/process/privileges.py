"""The rights of the children: user, group, root directory, capabilities."""

import ctypes
import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flashpol.config import ConfigError, Server
from flashpol.process.core_dumps import forbid_core_dumps, is_dumpable

T = TypeVar("T")


@dataclass(frozen=True)
class Privileges:
    """What the children keep. Without a user they stay the one that started the server; without a group they have the
    user's own groups.

    transparent: they may bind the addresses of their clients (`upstream_source = "client"`).
    """

    user: pwd.struct_passwd | None = None
    group: grp.struct_group | None = None
    root: Path | None = None
    transparent: bool = False

    @property
    def _groups(self) -> list[int]:
        """All groups, the primary one first; none if the groups stay as they are."""
        if self.group:
            return [self.group.gr_gid]
        return os.getgrouplist(self.user.pw_name, self.user.pw_gid) if self.user else []

    @property
    def are_roots(self) -> bool:
        """The children run as root."""
        return (self.user.pw_uid if self.user else os.geteuid()) == 0

    @classmethod
    def of(cls, server: Server, *, transparent: bool = False) -> "Privileges":
        """Raises ConfigError if there is no such user, group or folder."""
        places = server.locations
        user = _look_up("user", server.user, pwd.getpwnam, places.get("user"))
        group = _look_up("group", server.group, grp.getgrnam, places.get("group"))
        if server.chroot is not None:
            chroot, place = f"chroot {str(server.chroot)!r}", places.get("chroot")
            if not server.chroot.is_dir():
                raise ConfigError(f"{chroot}: no such folder", place)
            if user is None:
                raise ConfigError(f"{chroot}: root can leave a chroot; set user too", place)
        return cls(user, group, server.chroot, transparent)

    def require_rights(self) -> None:
        """Raises ConfigError if only root can become this, and this process is not root."""
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
            raise ConfigError(f"{wanted[0]}: only root can change that; start as root, or remove the setting")

    def drop(self) -> None:
        """Give up all other rights for good: saved ids and capabilities go too, and no program can give any back. Only
        `transparent` keeps one capability."""
        privileged = os.geteuid() == 0
        dumpable = is_dumpable()
        groups = self._groups  # looked up while /etc can be read
        if self.root is not None:
            os.chroot(self.root)
            os.chdir("/")
        if privileged and groups:
            os.setgroups(groups)
            os.setresgid(groups[0], groups[0], groups[0])
        kept = _transparent_capability() if self.transparent else 0
        if privileged and self.user:
            _keep_capabilities(bool(kept))
            os.setresuid(self.user.pw_uid, self.user.pw_uid, self.user.pw_uid)
            _keep_capabilities(False)
        _drop_capabilities(kept)
        if not dumpable:  # what it is after a change of the user, the host decides (fs.suid_dumpable)
            forbid_core_dumps()


def _look_up(what: str, name: str | None, find: Callable[[str], T], place: object) -> T | None:
    try:
        return find(name) if name is not None else None
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise ConfigError(f"{what} {name!r}: no such {what}", place) from None


# prctl(2), capget(2) and capset(2); CPython has none of them.
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13


def _capability_header() -> "ctypes.Array[ctypes.c_uint32]":
    """For this process."""
    return (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)


def _transparent_capability() -> int:
    """The bit of the capability that lets a socket have an address of another host, the lesser one of two if this
    process has both; 0: it has none."""
    sets = (
        ctypes.c_uint32 * 6
    )()  # effective, permitted and inheritable, for the capabilities 0 to 31, then the others
    ctypes.CDLL(None).capget(_capability_header(), sets)
    permitted = sets[1]
    return next((1 << number for number in (_CAP_NET_RAW, _CAP_NET_ADMIN) if permitted >> number & 1), 0)


def _keep_capabilities(keep: bool) -> None:
    """When the user changes from root to another."""
    ctypes.CDLL(None).prctl(_PR_SET_KEEPCAPS, int(keep), 0, 0, 0)


def _drop_capabilities(kept: int) -> None:
    """No program can gain rights by exec; a user other than root has no capability, such as CAP_NET_BIND_SERVICE, but
    those in `kept`, and no program gets them."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = [libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)]
    if os.geteuid() != 0:
        done.append(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
        done.append(libc.capset(_capability_header(), (ctypes.c_uint32 * 6)(kept, kept)))
    if any(done):
        raise OSError(ctypes.get_errno(), f"cannot give up privileges: {os.strerror(ctypes.get_errno())}")


def end_with_parent(number: int) -> None:
    """Have the kernel send this process a signal when its parent ends. The kernel forgets it when the user changes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def name_process(name: str) -> None:
    """ps and top show 15 bytes of `flashpol NAME`. A process that a file capability makes not dumpable could not write
    /proc/self/comm."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"flashpol {name}".encode()[:15], 0, 0, 0)
