"""Clients, a balancer and four hosts, each in a network namespace of its own, with the addresses of deploy/balancer.

    clients 192.0.2.7, .8 ── [192.0.2.1 balancer 10.0.0.5] ── 10.0.0.11 (A), 10.0.0.12 (B), 10.0.0.13 (C), 10.0.0.14 (D)

The balancer runs the configuration of deploy/balancer as it is shipped, but for the places of its files.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

from testkit.clients import connect
from testkit.namespaces import inside, new_namespace
from testkit.polling import DEADLINE, eventually
from testkit.processes import ROOT, Flashpol
from testkit.programs import NGINX_MODULES, find, running, wait_for
from testkit.routed_network import shell

SHIPPED = ROOT / "deploy" / "balancer"
LETTERS = "ABCD"
ADDRESSES = {letter: f"10.0.0.{11 + number}" for number, letter in enumerate(LETTERS)}
CLIENTS = ("192.0.2.7", "192.0.2.8")
FRONT = "192.0.2.1"
HTTP, RAW, ADMIN = 80, 1935, 9843
UPSTREAMS = (1936, 7001)


class Host(Protocol):
    """A host's server. It runs while its block lasts, or until `kill`."""

    def __init__(self, namespace: int, letter: str, folder: Path) -> None: ...
    def __enter__(self) -> "Host": ...
    def __exit__(self, *error: object) -> None: ...
    def kill(self) -> None: ...
    def clients(self) -> list[str]:
        """The addresses of those whose sessions were here, when these have ended."""


class StubHost:
    """testkit/rtmpt_stub.py."""

    def __init__(self, namespace: int, letter: str, folder: Path) -> None:
        self.namespace, self.letter, self.address, self.folder = namespace, letter, ADDRESSES[letter], folder

    def __enter__(self) -> "StubHost":
        ports = map(str, (HTTP, RAW, ADMIN))
        arguments = [sys.executable, "-m", "testkit.rtmpt_stub", self.letter, self.address, *ports]
        with (self.folder / f"host-{self.letter}.log").open("wb") as log:
            self.process = inside(self.namespace, lambda: subprocess.Popen(arguments, cwd=ROOT, stderr=log))
        inside(self.namespace, lambda: wait_for((self.address, ADMIN), f"host {self.letter}"))
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def clients(self) -> list[str]:
        with inside(self.namespace, lambda: connect((self.address, ADMIN), b"GET / HTTP/1.0\r\n\r\n")) as connection:
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode().partition("\r\n\r\n")[2].split()


class FlashpolHost:
    """flashpol with the shipped configuration and two workers, in front of an application that echoes."""

    def __init__(self, namespace: int, letter: str, folder: Path) -> None:
        self.namespace, self.letter, self.folder = namespace, letter, folder

    def __enter__(self) -> "FlashpolHost":
        text = (SHIPPED / "flashpol.toml").read_text()
        text = text.replace('host = "A"', f'host = "{self.letter}"\naccess_log = 1')
        text = text.replace('workers = "auto"', "workers = 2").replace(ADDRESSES["A"], ADDRESSES[self.letter])
        text = text.replace("# crossdomain_file", "crossdomain_file")
        (self.folder / f"host-{self.letter}.toml").write_text(text)
        (self.folder / "crossdomain.xml").write_text("<cross-domain-policy/>")
        self.listening = inside(self.namespace, _listen)
        for listening in self.listening:
            threading.Thread(target=_echo_all, args=(listening,), daemon=True).start()
        self.server = Flashpol("-c", self.folder / f"host-{self.letter}.toml", listen=(), workers=None, admin=None)
        inside(self.namespace, self.server.__enter__)
        return self

    def __exit__(self, *error: object) -> None:
        self._end_applications()
        self.server.__exit__(*error)

    def kill(self) -> None:
        self.server.stop(signal.SIGKILL)
        for child in self.server._seen:
            child.kill()
        self._end_applications()

    def _end_applications(self) -> None:
        for listening in self.listening:
            with suppress(OSError):  # it is closed
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def clients(self) -> list[str]:
        return re.findall(r" (\S+?)(?::\d+)?: relayed\b.*\brtmpt\b", self.server.log)


def _listen() -> list[socket.socket]:
    return [socket.create_server(("127.0.0.1", port)) for port in UPSTREAMS]


def _echo_all(listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            threading.Thread(target=_echo, args=(listening.accept()[0],), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while data := connection.recv(1 << 16):
            connection.sendall(data)


class HaproxyBalancer:
    """Runs as a service manager runs it, with a master, so that SIGUSR2 reloads it."""

    program, reload_signal = "haproxy", signal.SIGUSR2
    one_port = True  # HTTP and everything else

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "haproxy.cfg"
        text = (SHIPPED / "haproxy.cfg").read_text()
        text = _replaced(text, "/etc/haproxy/errors/flashpol-gone.http", str(SHIPPED / "gone.http"))
        text = _replaced(text, "/run/haproxy/admin.sock", str(folder / "admin.sock"))
        text = _replaced(text, "    user haproxy\n    group haproxy\n    chroot /var/lib/haproxy\n", "")
        self.file.write_text(text)
        self.check = [find("haproxy") or "haproxy", "-c", "-f", str(self.file)]
        self.command = [find("haproxy") or "haproxy", "-W", "-p", str(folder / "pid"), "-f", str(self.file)]

    def ask(self, *commands: str) -> str:
        """The runtime interface's replies."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.folder / "admin.sock"))
            connection.sendall(";".join(commands).encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode()

    def up(self) -> set[str]:
        """The letters of the hosts that take new sessions."""
        if not (self.folder / "admin.sock").exists():
            return set()
        rows = [line.split(",") for line in self.ask("show stat").splitlines() if line.startswith("hosts,")]
        return {row[1] for row in rows if row[1] in ADDRESSES and row[17].startswith(("UP", "no check"))}

    def drain(self, letter: str) -> None:
        self.ask(*(f"set server {backend}/{letter} state drain" for backend in ("hosts", "raw")))

    def use_certificate(self, both: Path) -> None:
        text = _replaced(self.file.read_text(), "# bind :443", "bind :443")
        self.file.write_text(_replaced(text, "/etc/haproxy/media.example.com.pem", str(both)))

    def write_fourth(self) -> None:
        self.file.write_text(_with_fourth(self.file.read_text(), "HOST_C"))


class NginxBalancer:
    program, reload_signal = "nginx", signal.SIGHUP
    one_port = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "http.conf"
        shutil.copy(SHIPPED / "nginx-http.conf", self.file)
        shutil.copy(SHIPPED / "nginx-stream.conf", folder / "stream.conf")
        temporary = "".join(
            f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"load_module {NGINX_MODULES}/ngx_stream_module.so;\nuser root;\nworker_processes 2;\ndaemon off;\n"
            f"pid {folder}/pid;\nerror_log {folder}/error.log;\nevents {{ }}\n"
            f"http {{\n{temporary}    access_log off;\n    include {self.file};\n}}\ninclude {folder}/stream.conf;\n"
        )
        self.command = [
            find("nginx") or "nginx", "-p", str(folder), "-e", str(folder / "start.log"),
            "-c", str(folder / "nginx.conf"),
        ]  # fmt: skip
        self.check = [*self.command, "-t"]

    def up(self) -> set[str]:
        """nginx checks no health; it skips a host that refuses connections."""
        return set()

    def use_certificate(self, both: Path) -> None:
        text = self.file.read_text()
        for line in re.findall(r"^ *# (listen 443|ssl_\w+ .*;)", text, re.M):
            text = _replaced(text, f"# {line}", line)
        self.file.write_text(re.sub(r"/etc/nginx/media\.example\.com\.\w+", str(both), text))

    def edit(self, old: str, new: str) -> None:
        self.file.write_text(_replaced(self.file.read_text(), old, new))

    def drain(self, letter: str) -> None:
        self.edit(f"server {ADDRESSES[letter]}:80 max_fails", f"server {ADDRESSES[letter]}:80 down max_fails")

    def write_fourth(self) -> None:
        self.file.write_text(_with_fourth(self.file.read_text(), r'10\.0\.0\.13|/C"'))


Balancer = HaproxyBalancer | NginxBalancer


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"what is shipped has no {old!r}"
    return text.replace(old, new)


def _with_fourth(text: str, third: str) -> str:
    """With a line for D below each line for C, which matches `third`."""

    def both(found: re.Match[str]) -> str:
        line = found[0]
        for old, new in (("HOST_C", "HOST_D"), ("server C", "server D"), ("_C", "_D"), ('/C"', '/D"'), (".13", ".14")):
            line = line.replace(old, new)
        return found[0] + line

    text, count = re.subn(rf"^.*(?:{third}).*\n", both, text, flags=re.M)
    assert count >= 3
    return text


class BalancedHosts:
    """The network, with hosts A, B and C behind a balancer that runs."""

    def __init__(self, balancer: Balancer, kind: type[Host], folder: Path, undo: ExitStack) -> None:
        self.balancer, self.kind, self.folder, self.undo = balancer, kind, folder, undo
        self.outside, self.front, *inner = (_namespace(undo) for _ in range(6))
        self.inner = dict(zip(LETTERS, inner, strict=True))
        self.hosts: dict[str, Host] = {}
        shell(
            self.front,
            f"ip link set lo up; ip link add eth0 type veth peer name eth0 netns /proc/self/fd/{self.outside}\n"
            f"ip address add {FRONT}/24 dev eth0; ip link set eth0 up",
            (self.outside,),
        )
        addresses = "; ".join(f"ip address add {address}/24 dev eth0" for address in CLIENTS)
        shell(self.outside, f"ip link set lo up; {addresses}; ip link set eth0 up")
        for letter, namespace in self.inner.items():
            shell(
                self.front,
                f"ip link add to{letter} type veth peer name eth0 netns /proc/self/fd/{namespace}\n"
                f"ip address add 10.0.0.5 peer {ADDRESSES[letter]} dev to{letter}; ip link set to{letter} up",
                (namespace,),
            )
            shell(
                namespace,
                f"ip link set lo up; ip address add {ADDRESSES[letter]} peer 10.0.0.5 dev eth0; ip link set eth0 up",
            )

    def start_host(self, letter: str) -> Host:
        self.hosts[letter] = self.undo.enter_context(self.kind(self.inner[letter], letter, self.folder))
        return self.hosts[letter]

    def start_balancer(self) -> None:
        self.process = inside(
            self.front,
            lambda: self.undo.enter_context(running(*self.balancer.command, log=self.folder / "balancer.log")),
        )
        inside(self.front, lambda: wait_for((FRONT, HTTP), self.balancer.program))

    def connect(self, port: int = HTTP, data: bytes = b"", client: str = CLIENTS[0]) -> socket.socket:
        return inside(self.outside, lambda: connect((FRONT, port), data, source=client))

    def reload(self) -> None:
        done = subprocess.run(self.balancer.check, capture_output=True, timeout=DEADLINE, check=False)
        assert done.returncode == 0, done.stderr.decode()
        self.process.send_signal(self.balancer.reload_signal)


def _namespace(undo: ExitStack) -> int:
    namespace = new_namespace()
    undo.callback(os.close, namespace)
    return namespace


@contextmanager
def balanced_hosts(balancer: Balancer, kind: type[Host], folder: Path) -> Iterator[BalancedHosts]:
    """Skips the test where the kernel or the user cannot make namespaces."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    with ExitStack() as undo:
        try:
            made = BalancedHosts(balancer, kind, folder, undo)
        except OSError as error:
            pytest.skip(f"no network namespace: {error.strerror}")
        for letter in "ABC":
            made.start_host(letter)
        made.start_balancer()
        if isinstance(balancer, HaproxyBalancer):
            eventually(lambda: balancer.up() == set("ABC"), "the health of A, B and C")
        yield made
