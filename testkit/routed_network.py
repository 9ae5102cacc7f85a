"""Clients, flashpol's host and the application's host, each in a network namespace of its own, for tests of
`upstream_source = "client"`.

    clients 198.51.100.7, .8 ── eth0 [198.51.100.1  host  10.0.0.1] eth1 ── eth0 [10.0.0.9 application]

IPv6: 2001:db8::/64 and fd00::/64 with the same last numbers. The clients and the application have no route to each
other. docs/guide/client-address.md names the same addresses and devices.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from testkit.namespaces import SECONDS, inside, new_namespace
from testkit.processes import ROOT

GUIDE = ROOT / "docs" / "guide" / "client-address.md"
CLIENTS = {4: ("198.51.100.7", "198.51.100.8"), 6: ("2001:db8::7", "2001:db8::8")}
HOST = {4: "198.51.100.1", 6: "2001:db8::1"}
INNER = {4: "10.0.0.1", 6: "fd00::1"}
APPLICATION = {4: "10.0.0.9", 6: "fd00::9"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PORT = 7001

_HOST = """
ip link set lo up
ip link add eth0 type veth peer name eth0 netns /proc/self/fd/{clients}
ip link add eth1 type veth peer name eth0 netns /proc/self/fd/{application}
ip address add 198.51.100.1/24 dev eth0
ip address add 2001:db8::1/64 dev eth0 nodad
ip address add 10.0.0.1/24 dev eth1
ip address add fd00::1/64 dev eth1 nodad
ip link set eth0 up
ip link set eth1 up
"""
_CLIENTS = """
ip link set lo up
for last in 7 8; do
    ip address add 198.51.100.$last/24 dev eth0
    ip address add 2001:db8::$last/64 dev eth0 nodad
done
ip link set eth0 up
"""
# Its default routes lead elsewhere, to where nothing answers.
_APPLICATION = """
ip link set lo up
ip link add eth1 type veth peer name away
ip address add 10.99.0.1/24 dev eth1
ip address add fd99::1/64 dev eth1 nodad
ip link set away up
ip link set eth1 up
ip route add default via 10.99.0.2
ip -6 route add default via fd99::2
ip address add 10.0.0.9/24 dev eth0
ip address add fd00::9/64 dev eth0 nodad
ip link set eth0 up
"""
# Some distributions have it.
_STRICT = "for filter in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$filter; done"


class RoutedNetwork(NamedTuple):
    """Descriptors of the three namespaces."""

    clients: int
    host: int
    application: int


def shell(namespace: int, script: str, pass_fds: tuple[int, ...] = ()) -> str:
    """Run a shell script in the namespace; the test fails with its first command that fails."""

    def run() -> str:
        done = subprocess.run(
            ["sh", "-euc", script], capture_output=True, text=True, timeout=SECONDS, check=False, pass_fds=pass_fds
        )
        assert done.returncode == 0, f"{script}: {done.stderr}"
        return done.stdout

    return inside(namespace, run)


def guide_commands() -> list[str]:
    """The blocks of commands in the guide, in their order."""
    return re.findall(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.M | re.S)


@contextmanager
def routed_network() -> Iterator[RoutedNetwork]:
    """Skips the test where the kernel or the user cannot make namespaces."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    if not os.access("/proc/sys/net/ipv4/conf/all/rp_filter", os.W_OK):
        pytest.skip("/proc/sys cannot be written here")
    with ExitStack() as made:
        try:
            net = RoutedNetwork(new_namespace(), new_namespace(), new_namespace())
        except OSError as error:
            pytest.skip(f"no network namespace: {error.strerror}")
        for namespace in net:
            made.callback(os.close, namespace)
        shell(net.host, _HOST.format(clients=net.clients, application=net.application), (net.clients, net.application))
        shell(net.clients, _CLIENTS)
        shell(net.application, _APPLICATION)
        for namespace in (net.host, net.application):
            shell(namespace, _STRICT)
        yield net


def set_sysctl(namespace: int, name: str, value: str) -> None:
    """name: below net.ipv4."""
    inside(namespace, lambda: Path("/proc/sys/net/ipv4", name).write_text(value))
