"""A small network for tests: a host and its clients, each with several addresses, in network namespaces of their own.

The namespaces have no name: the kernel removes them with the last process and descriptor. Needs root and iproute2.
"""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, TypeVar

import pytest

CLONE_NEWNET = 0x40000000
SECONDS = 60  # for what runs in a namespace, which has deadlines of its own
HOST = "10.84.3.1"
HOST6 = "fd84::1"
CLIENTS = ("10.84.3.11", "10.84.3.12", "10.84.3.13")
CLIENTS6 = ("fd84::11", "fd84::12")

T = TypeVar("T")


class Network(NamedTuple):
    """Descriptors of the two namespaces."""

    host: int
    clients: int


def inside(namespace: int, function: Callable[[], T]) -> T:
    """Call `function` in a thread in the namespace; processes that it starts stay there. Returns or raises the same."""
    result: Future[T] = Future()

    def work() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            result.set_result(function())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return result.result(SECONDS)


def new_namespace() -> int:
    """The descriptor of a new namespace, made by a thread that ends."""
    result: Future[int] = Future()

    def work() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            result.set_exception(OSError(ctypes.get_errno(), "unshare"))
        else:
            result.set_result(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    threading.Thread(target=work, daemon=True).start()
    return result.result(SECONDS)


def _ip(*arguments: str, pass_fds: Sequence[int] = ()) -> None:
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False, pass_fds=pass_fds
    )
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _addresses(device: str, addresses: tuple[str, ...]) -> None:
    _ip("link", "set", "lo", "up")
    for address in addresses:
        flags = ("/64", "nodad") if ":" in address else ("/24",)  # nodad: usable at once
        _ip("address", "add", address + flags[0], "dev", device, *flags[1:])
    _ip("link", "set", device, "up")


def add_host_address(net: Network, address: str) -> None:
    """One more IPv4 address of the host."""
    inside(net.host, lambda: _ip("address", "add", f"{address}/24", "dev", "host"))


@contextmanager
def network() -> Iterator[Network]:
    """A host and its clients. Skips the test where the kernel or the user cannot make namespaces."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    with ExitStack() as made:
        try:
            both = Network(new_namespace(), new_namespace())
        except OSError as error:
            pytest.skip(f"no network namespace: {error.strerror}")
        for namespace in both:
            made.callback(os.close, namespace)
        end = ["type", "veth", "peer", "name", "clients", "netns", f"/proc/self/fd/{both.clients}"]
        inside(both.host, lambda: _ip("link", "add", "host", *end, pass_fds=[both.clients]))
        inside(both.host, lambda: _addresses("host", (HOST, HOST6)))
        inside(both.clients, lambda: _addresses("clients", (*CLIENTS, *CLIENTS6)))
        yield both
