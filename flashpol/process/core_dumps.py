"""Keeps private keys out of core dumps, and other processes of the same user out of the memory that has them.

A process that is not dumpable leaves no core dump, neither in a file nor in a pipe to systemd-coredump, and only root
can attach a debugger to it or read its /proc/PID/mem. The files in its /proc/PID belong to root; the ones that flashpol
reads, such as stat and cmdline, everybody may read. A child inherits the state, and a change of the user resets it, so
`Privileges.drop` restores it.
"""

import ctypes
import os
import resource

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4  # prctl(2)


def is_dumpable() -> bool:
    return bool(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0))


def forbid_core_dumps() -> None:
    """For this process, for good, and for its children."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"cannot forbid core dumps: {os.strerror(ctypes.get_errno())}")
