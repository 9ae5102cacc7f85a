"""Two hosts and a wire between them, in network namespaces: for properties that loopback cannot show.

The probe runs in `near`, which has its own hosts file and no route except the wire. `far` has the addresses that are
served, and is the router that rejects or drops packets. All addresses are reserved for documentation (RFC 5737,
RFC 3849), and no packet leaves the two namespaces.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from testkit.polling import DEADLINE, eventually
from testkit.processes import ROOT, command

FAR = [(f"192.0.2.{number}", f"2001:db8::{number}") for number in range(2, 10)]
# The router rejects or drops packets to these, in both families.
UNREACHABLE, PROHIBITED, DROPPED = [(f"198.51.100.{number}", f"2001:db8:1::{number}") for number in (1, 2, 3)]
# `near` has no route to these.
NO_ROUTE = ("203.0.113.1", "2001:db8:2::1")

_NEAR = """
link set lo up
link add wire type veth peer name wire netns {far}
address add 192.0.2.1/24 dev wire
address add 2001:db8::1/64 dev wire nodad
link set wire up
route add 198.51.100.0/24 via 192.0.2.2
"""
_FAR = """
link set lo up
link set wire up
route add unreachable 198.51.100.1
route add prohibit 198.51.100.2
route add blackhole 198.51.100.3
route add unreachable 2001:db8:1::1
route add prohibit 2001:db8:1::2
route add blackhole 2001:db8:1::3
""" + "".join(f"address add {four}/24 dev wire\naddress add {six}/64 dev wire nodad\n" for four, six in FAR)
_ROUTER = (
    "sysctl() { echo $2 >/proc/sys/net/$1; }; sysctl ipv4/ip_forward 1; sysctl ipv6/conf/all/forwarding 1;"
    " sysctl ipv4/icmp_ratelimit 0; sysctl ipv6/icmp/ratelimit 0"
)
_CLONE_NEWNET = 0x40000000


class Network:
    """Skips the test where namespaces cannot be created or configured: not root, or in a container."""

    def __init__(self, folder: Path, names: dict[str, Sequence[str]]) -> None:
        self._hosts = folder / "hosts"
        self._hosts.write_text("".join(f"{ip} {name}\n" for name, addresses in names.items() for ip in addresses))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        if not shutil.which("ip"):
            pytest.skip("iproute2 is not installed")
        if not os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK):
            pytest.skip("/proc/sys cannot be written here")
        with self._stack:
            self.near, self.far = self._namespace(), self._namespace()
            self._in(self.near, "ip", "-batch", "-", given=_NEAR.format(far=self.far))
            self._in(self.far, "sh", "-ec", _ROUTER)
            self._in(self.far, "ip", "-batch", "-", given=_FAR)
            self._in(self.near, "ip", "route", "add", "2001:db8:1::/64", "via", "2001:db8::2")
            self._in(self.near, "mount", "--bind", str(self._hosts), "/etc/hosts")
            for family, far in zip((socket.AF_INET, socket.AF_INET6), FAR[0], strict=True):
                eventually(lambda family=family, far=far: self._refuses(family, far), "the wire")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def at_the_far_end(self) -> Iterator[None]:
        """Create the sockets of this thread in `far`; they stay there."""
        with _inside(self.far):
            yield

    def flashpol(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run flashpol in `near`."""
        return subprocess.run(
            [*self._enter(self.near), *command(*arguments)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def _namespace(self) -> int:
        """Start the process that holds a namespace; it ends with its input, also when the tests are killed."""
        holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=-1
        )
        self._stack.enter_context(holder)  # closes its input and waits for it
        ours, its = (os.readlink("/proc/self/ns/net"), f"/proc/{holder.pid}/ns/net")
        eventually(lambda: holder.poll() is not None or os.readlink(its) != ours, "a namespace")
        if holder.poll() is not None:
            assert holder.stderr is not None
            pytest.skip(f"no network namespaces here: {holder.stderr.read().decode().strip()}")
        return holder.pid

    @staticmethod
    def _enter(holder: int) -> list[str]:
        return ["nsenter", f"--net=/proc/{holder}/ns/net", f"--mount=/proc/{holder}/ns/mnt", f"--wd={ROOT}"]

    def _in(self, holder: int, *words: str, given: str = "") -> None:
        done = subprocess.run(
            [*self._enter(holder), *words], input=given, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), words

    def _refuses(self, family: int, far: str) -> bool:
        """Check that the address is usable: an IPv6 address is not usable at once."""
        with _inside(self.near), socket.socket(family) as trial:
            trial.settimeout(1)
            with contextlib.suppress(TimeoutError):
                return trial.connect_ex((far, 843)) == 111
        return False


@contextlib.contextmanager
def _inside(holder: int) -> Iterator[None]:
    """Enter the namespace with this thread; threads started meanwhile stay there."""
    with open("/proc/thread-self/ns/net", "rb") as ours, open(f"/proc/{holder}/ns/net", "rb") as theirs:
        _set(theirs.fileno())
        try:
            yield
        finally:
            _set(ours.fileno())


def _set(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
