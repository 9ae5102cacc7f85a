"""Servers of several workers that are restarted while clients have sessions, and the applications behind them.

A process has at most 20,000 files, so each server has several workers. HAProxy has had no workers since 2.5; it has as
many processes instead, which share the port by SO_REUSEPORT. nginx cannot tell a policy request from a session, so it
has a port for each. HAProxy can where it relays bytes; with TLS and with WebSocket it has two ports here, too.
"""

import compileall
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import BenchError, build
from bench.measure import children
from bench.servers.certificate import Certificate
from bench.servers.haproxy import configuration as haproxy_configuration
from bench.servers.haproxy import haproxy_program, lua, policy_port
from bench.servers.haproxy import missing as haproxy_missing
from bench.servers.nginx import load, nginx_program, policy_lines
from bench.servers.nginx import missing as nginx_missing
from bench.servers.relays import SESSIONS, SHARED_PORT
from bench.servers.running import (
    BACKLOG,
    FILES,
    ROOT,
    free_port,
    printed_port,
    running,
    wait_for_reply,
    work_folder,
)
from testkit.clients import REQUEST
from testkit.polling import eventually

OURS, HAPROXY, NGINX = "flashpol", "HAProxy", "nginx"
PLAIN, TLS, WEBSOCKET = PROTOCOLS = ("TCP", "TLS", "WebSocket")
START_SECONDS, END_SECONDS = 60.0, 10.0
DOWN_SECONDS = 1.0  # from the end of the applications to their start
HAPROXY_HTTP = """frontend sessions
    mode http
    bind 127.0.0.1:{port} backlog {backlog}
    timeout client 1h
    timeout http-request 10s
    default_backend application
backend application
    mode http
    timeout server 1h
    timeout tunnel 1h
{servers}
"""
HAPROXY_TLS = """frontend sessions
    bind 127.0.0.1:{port} backlog {backlog} ssl crt {certificate}
    timeout client 1h
    default_backend application
backend application
    timeout server 1h
{servers}
"""
UPGRADE = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'


@dataclass
class Applications:
    """Several applications on ports that they keep. cost: of an accept, in µs."""

    count: int
    websocket: bool = False
    cost: int = 0
    ports: list[int] = field(default_factory=list)
    _folders: list[Path] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """Start them, at the same ports each time."""
        ports, self.ports, self._folders = self.ports or [0] * self.count, [], []
        mode = "ws-application" if self.websocket else "application"
        for port in ports:
            folder = self._stack.enter_context(work_folder())
            command = [str(build.load_generator()), "relay", mode, str(port), str(self.cost)]
            process = self._stack.enter_context(running(mode, command, folder, None))
            self.ports.append(printed_port(mode, process, folder))
            self._folders.append(folder)

    def stop(self) -> None:
        """End them."""
        self._stack.close()

    def restart(self, away: float = DOWN_SECONDS) -> None:
        """End them, and start them after some seconds, as a game server would need it."""
        self.stop()
        time.sleep(away)
        self.start()

    def accepts(self) -> dict[int, int]:
        """Accepts of an application with a cost in each 100 ms."""
        return {window: accepted for window, accepted, _ in self._windows()}

    def drops(self) -> int:
        """SYNs that the kernel had dropped at its full accept queue when it last printed its accepts."""
        return max((dropped for _, _, dropped in self._windows()), default=0)

    def _windows(self) -> list[list[int]]:
        lines = (line for folder in self._folders for line in (folder / "stdout").read_text().splitlines())
        return [[int(word) for word in line.split()[1:]] for line in lines if line.startswith("accepts ")]


@dataclass
class Fleet:
    """A server of several workers. port, policy_port: of sessions and of policy clients. commands: its processes."""

    name: str
    port: int
    policy_port: int
    folder: Path
    commands: list[list[str]]
    worker: str = ""  # the name that its worker processes begin with; of HAProxy the processes are the workers
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _stacks: list[ExitStack] = field(default_factory=list)

    @property
    def expected(self) -> Path:
        """The file with the exact reply to a policy request."""
        return self.folder / "expected"

    def start(self) -> None:
        """Start it, and wait for a reply."""
        for command in self.commands:
            self._launch(command)
        wait_for_reply(self.name, self._processes[0], self.policy_port, self.folder, START_SECONDS, REQUEST)

    def stop(self) -> None:
        """End it at once, as it does on SIGTERM."""
        for process in self._processes:
            process.terminate()
        for stack in self._stacks:
            stack.close()
        self._processes, self._stacks = [], []

    def restart(self) -> None:
        """As `systemctl restart` does."""
        self.stop()
        for command in self.commands:
            self._launch(command)

    def kill_worker(self) -> None:
        """Kill a worker with SIGKILL. HAProxy's process is started at once, as systemd does; others do that."""
        parent = self._processes[0]
        if not self.worker:
            parent.kill()
            self._stacks.pop(0).close()
            self._processes.pop(0)
            self._launch(self.commands[0])
            return
        pid = children(parent.pid, self.worker)[0]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: pid not in children(parent.pid), f"worker {pid} has ended", END_SECONDS, error=BenchError)

    def wait_for_workers(self, count: int) -> None:
        """Until all workers are up."""
        if self.worker:
            parent = self._processes[0].pid
            eventually(
                lambda: len(children(parent, self.worker)) == count, f"{self.name} has {count} workers", START_SECONDS,
                error=BenchError,
            )  # fmt: skip

    def _launch(self, command: list[str]) -> None:
        stack = ExitStack()
        self._processes.append(stack.enter_context(running(self.name, command, self.folder, None)))
        self._stacks.append(stack)


@contextmanager
def fleet(
    name: str, protocol: str, workers: int, applications: Applications, certificate: Certificate, listener: str = ""
) -> Iterator[Fleet]:
    """The server of this name, for sessions of this protocol. listener: more lines of flashpol's listener."""
    with work_folder() as folder:
        port, policy = free_port(), free_port()
        if name == OURS:
            made = _flashpol(folder, port, protocol, workers, applications, certificate, listener)
        elif name == HAPROXY:
            made = _haproxy(folder, port, policy, protocol, workers, applications, certificate)
        else:
            made = _nginx(folder, port, policy, protocol, workers, applications, certificate)
        try:
            made.start()
            made.wait_for_workers(workers)
            yield made
        finally:
            made.stop()


def missing(name: str) -> str | None:
    """Why the server of this name cannot be measured here, or None."""
    if name == HAPROXY:
        return haproxy_missing() or haproxy_missing("OPENSSL")
    return (nginx_missing() or nginx_missing("stream_ssl_module")) if name == NGINX else None


def compile_package() -> None:
    """Compile flashpol's modules, as an installation does: a restart would take twice as long."""
    compileall.compile_dir(ROOT / "flashpol", quiet=2)


def _flashpol(
    folder: Path, port: int, protocol: str, workers: int, applications: Applications, files: Certificate, listener: str
) -> Fleet:
    upstreams = ", ".join(f'"127.0.0.1:{one}"' for one in applications.ports)
    (folder / "flashpol.toml").write_text(
        f"[server]\nworkers = {workers}\nmax_sessions = {SESSIONS}\nshutdown_timeout = 0\n"
        + (f'[certificates.c]\nchain = "{files.chain}"\nkey = "{files.key}"\n' if protocol == TLS else "")
        + f'[policies.p]\nfile = "policy.xml"\n[[listeners]]\naddress = "127.0.0.1:{port}"\npolicy = "p"\n'
        + f"upstream = [{upstreams}]\n{listener}\n"
        + ('tls = ["c"]\n' if protocol == TLS else "")
        + ('websocket = [{ path = "*", port = 1935 }]\n' if protocol == WEBSOCKET else "")
    )
    command = [sys.executable, "-m", "flashpol", "serve", "-c", str(folder / "flashpol.toml")]
    return Fleet(OURS, port, port, folder, [command], "flashpol worker")


def _haproxy(
    folder: Path, port: int, policy: int, protocol: str, workers: int, applications: Applications, files: Certificate
) -> Fleet:
    servers = "\n".join(f"    server a{one} 127.0.0.1:{one}" for one in applications.ports)
    if protocol == PLAIN:
        policy = port
        shared = SHARED_PORT.replace("    server application 127.0.0.1:{application}\n", servers + "\n")
        sections = shared.format(port=port, backlog=BACKLOG, request=REQUEST.hex(), options="")
    else:
        sections = HAPROXY_HTTP if protocol == WEBSOCKET else HAPROXY_TLS
        sections = sections.format(port=port, backlog=BACKLOG, certificate=files.both, servers=servers)
        sections += policy_port(policy)
    (folder / "haproxy.cfg").write_text(haproxy_configuration(sections, more=lua(folder), connections=SESSIONS))
    command = [str(haproxy_program()), "-db", "-f", str(folder / "haproxy.cfg")]
    return Fleet(HAPROXY, port, policy, folder, [command] * workers)


def _nginx(
    folder: Path, port: int, policy: int, protocol: str, workers: int, applications: Applications, files: Certificate
) -> Fleet:
    # By default nginx takes a server away for 10 s after one failure, and all of them when the applications restart.
    servers = " ".join(f"server 127.0.0.1:{one} max_fails=0;" for one in applications.ports)
    upstream = f"upstream application {{ {servers} }}"
    listen = f"listen 127.0.0.1:{port} backlog={BACKLOG} reuseport"
    # Before 1.27.3 nginx had no TLS 1.3 by default, which the clients insist on.
    certificate = f"ssl_protocols TLSv1.3; ssl_certificate {files.chain}; ssl_certificate_key {files.key};"
    http = ""
    stream = f"server {{ listen 127.0.0.1:{policy} backlog={BACKLOG} reuseport; {policy_lines(folder)} }}"
    if protocol == WEBSOCKET:
        paths = " ".join(
            f"{one}_temp_path {folder}/{one};" for one in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        location = f"location / {{ proxy_pass http://application; proxy_read_timeout 1h; {UPGRADE} }}"
        http = f"http {{ access_log off; {paths} {upstream} server {{ {listen}; {location} }} }}\n"
    else:
        tls = (" ssl", certificate) if protocol == TLS else ("", "")
        stream += f" {upstream} server {{ {listen}{tls[0]}; {tls[1]} proxy_pass application; proxy_timeout 1h; }}"
    (folder / "nginx.conf").write_text(
        f"{load('stream')}daemon off;\nworker_processes {workers};\nworker_rlimit_nofile {FILES + 500};\n"
        f"pid {folder}/pid;\nerror_log {folder}/stderr crit;\nevents {{ worker_connections {FILES}; }}\n"
        f"stream {{ access_log off; {stream} }}\n{http}"
    )
    command = [str(nginx_program()), "-p", str(folder), "-e", str(folder / "stderr"), "-c", str(folder / "nginx.conf")]
    return Fleet(NGINX, port, policy, folder, [command], "nginx")
