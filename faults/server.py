"""A server under attack: two workers, listeners with policies of several sizes, and files with what clients say."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from bench.measure import children, open_files, status
from faults import FaultsError, hello, rtmpt, websocket
from faults.certificates import make
from testkit.clients import BARE, REQUEST
from testkit.polling import eventually
from testkit.processes import READY, Metrics

ROOT = Path(__file__).parent.parent
POLICY = '<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
# More than the kernel takes for a client that does not read, so that a greenlet holds the rest.
LARGE_BYTES = 1_000_000
POLICY_BYTES = {
    "small": len(POLICY),
    "medium": 11_900,  # the kernel takes all of it, and a client with a small window does not
    "slow": 200_000,  # a slow network needs more than a second for it
    "large": LARGE_BYTES,
}
# What clients and applications say: files in the server's folder.
MESSAGES = {
    "request": REQUEST,
    "bare": BARE,
    "more": REQUEST + b"x" * 100,
    "byte": b"e",  # the first byte of no protocol
    "hello": b"enter the arena, player one",
    "stranger": b"e" * 4_000,
    "proxy": b"PROXY TCP4 192.0.2.7 198.51.100.1 50000",  # the line does not end
    "proxied": b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 843\r\n" + REQUEST,
    "film": b"S" + (1 << 33).to_bytes(8, "big"),  # of bench's application: more than is sent in the time of any run
    "greeting": b"welcome to the chat\n",
    "tick": b"tick\n",
}
# What is 0 when no client is there.
GAUGES = {
    "connections_open": "connections",
    "tls_connections_open": "TLS connections",
    "tls_handshakes_open": "handshakes",
    "websocket_open": "WebSockets",
    "rtmpt_sessions_open": "tunnel sessions",
    "rtmpt_polls_held": "polls",
}
WORKERS = 2
READY_SECONDS = 20.0
STOP_SECONDS = 10.0

# As a service manager does between fork and exec: the listening socket becomes descriptor 3.
PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="main")
os.execv(sys.argv[2], sys.argv[2:])
"""


def write_messages(folder: Path, messages: Mapping[str, bytes] = MESSAGES) -> None:
    """Write a file for each message."""
    for name, message in messages.items():
        (folder / name).write_bytes(message)


@dataclass(frozen=True)
class Listener:
    """A listener: its name, its policy (see `POLICY_BYTES`), its address, and other lines of its table."""

    name: str
    policy: str = "small"
    address: str = "127.0.0.1:0"
    options: Mapping[str, object] = field(default_factory=dict)


PROXIED = {"proxy_protocol": "true", "proxy_networks": '["127.0.0.0/8"]'}
# The small policy, the large one, and the small one with PROXY headers.
LISTENERS = (Listener("small"), Listener("large", "large"), Listener("proxied", options=PROXIED))


class Server:
    """`settings`: lines of [server]. A context manager, within which the server is ready. `ports`: by listener.

    environment: added to this process's. stderr: a descriptor for its log, instead of a file. inherited: a listening
    socket that it gets as from a service manager, instead of the first listener's address. under: a command that
    executes the server, such as prlimit. certificates: it has these (`certificates.KEYS`), for the option `tls` of
    its listeners. http: its clients say what `websocket.messages` and `rtmpt.messages` have,
    and `url.xml` is a policy file.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        listeners: Sequence[Listener] = LISTENERS,
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
        inherited: socket.socket | None = None,
        under: Sequence[str] = (),
        certificates: Sequence[str] = (),
        http: bool = False,
    ) -> None:
        self._settings = {"workers": WORKERS, "admin": '"127.0.0.1:0"', **(settings or {})}
        first, *others = listeners
        self.listeners = (replace(first, address="systemd:main") if inherited else first, *others)
        self.ports: dict[str, int] = {}
        self._environment = {**os.environ, **(environment or {})}
        self._stderr = stderr
        self._inherited = inherited
        self._under = [*under]
        self._certificates = certificates
        self._http = http
        self._messages = {
            **MESSAGES,
            **(hello.messages() if certificates else {}),
            **(websocket.messages(MESSAGES["hello"], MESSAGES["film"]) if self._http else {}),
            **(rtmpt.messages(MESSAGES["hello"], MESSAGES["film"]) if self._http else {}),
        }
        self._files = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="flashpol-faults-")))
        write_messages(self._folder, self._messages)
        for name in self._certificates:
            make(self._folder, name)
        if self._http:
            (self._folder / "url.xml").write_bytes(websocket.URL_POLICY)
        for name, size in POLICY_BYTES.items():
            policy = POLICY + " " * (size - len(POLICY))
            (self._folder / f"{name}.xml").write_text(policy)
            (self._folder / f"reply-{name}").write_bytes(policy.encode() + b"\0")
        self._write_configuration()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all of its processes, also those that a killed arbiter has left."""
        with self._files:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):  # no process is left
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_SECONDS)

    def _write_configuration(self) -> None:
        lines = ["[server]", *(f"{name} = {value}" for name, value in self._settings.items())]
        for name in dict.fromkeys(each.policy for each in self.listeners):
            lines += [f"[policies.{name}]", f'file = "{name}.xml"']
        for name in self._certificates:
            lines += [f"[certificates.{name}]", f'chain = "{name}.pem"', f'key = "{name}.key"']
        for each in self.listeners:
            lines += ["[[listeners]]", f'name = "{each.name}"', f'address = "{each.address}"']
            lines += [f'policy = "{each.policy}"', *(f"{name} = {value}" for name, value in each.options.items())]
        (self._folder / "flashpol.toml").write_text("\n".join(lines) + "\n")

    def message(self, name: str) -> Path:
        """The file with this message."""
        return self._folder / name

    def script(self, listener: str, steps: str) -> str:
        """The steps of a good client of this listener, with the names of files (see `places.Kind`)."""
        [policy] = [each.policy for each in self.listeners if each.name == listener]
        return steps.format(
            reply=self.message(f"reply-{policy}"), **{name: self.message(name) for name in self._messages}
        )

    @property
    def authority(self) -> Path:
        """The file with the first certificate, which signs itself."""
        return self._folder / f"{self._certificates[0]}.pem"

    def start(self) -> None:
        """Start it, or restart it after its end; returns when it is ready."""
        command = [*self._under, sys.executable, "-m", "flashpol", "serve", "-c", str(self._folder / "flashpol.toml")]
        passed = [self._inherited.fileno()] if self._inherited else []
        if passed:
            command = [sys.executable, "-c", PASS_SOCKET, str(passed[0]), *command]
        out, log = self._folder / "stdout", self._folder / "log"
        with out.open("wb") as stdout, log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr if self._stderr is None else self._stderr,
                start_new_session=True,
                pass_fds=passed,
            )
        ready = eventually(lambda: self._ready(out), "the ready line", READY_SECONDS, error=FaultsError)
        ports = (int(address.rpartition(":")[2]) for address in ready[2].split(", "))
        self.ports = dict(zip((each.name for each in self.listeners), ports, strict=True))
        self.admin_port = int(ready[3].split("/")[2].rpartition(":")[2])

    def _ready(self, out: Path) -> re.Match[str] | None:
        if self.process.poll() is not None:
            raise FaultsError(f"the server ended with {self.process.returncode}: {self.log[-500:]}")
        return READY.search(out.read_text())

    @property
    def port(self) -> int:
        """The port of the first listener."""
        return self.ports[self.listeners[0].name]

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    # ---------------------------------------------------------------------------------------------------- processes

    @property
    def workers(self) -> list[int]:
        """Pids of its workers, lowest first."""
        return children(self.process.pid, "flashpol worker")

    def files(self) -> int:
        """The number of descriptors that all its processes have open."""
        return sum(open_files(pid) for pid in (self.process.pid, *children(self.process.pid)))

    def resident(self) -> int:
        """Bytes of memory that all its processes have touched and that are no file."""
        return sum(status(pid)["RssAnon"] for pid in (self.process.pid, *children(self.process.pid)))

    # ------------------------------------------------------------------------------------------------------ accounts

    def metrics(self) -> "Account":
        """Scrape it. Raises OSError if it does not reply."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=STOP_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return Account.parse(connection.getresponse().read().decode())

    def settled(self, seconds: float) -> "Account":
        """The metrics once no connection is open. Raises FaultsError."""

        def look() -> Account | None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = self.metrics()
                if not found.left_open() and found.total("worker_up") == self._settings["workers"]:
                    return found
            return None

        return eventually(look, "all connections ended and all workers up", seconds, error=FaultsError)


class Account(Metrics):
    """The metrics of one scrape, as an account of the connections."""

    def left_open(self) -> dict[str, int]:
        """What is open, and how many of it, without zeros: see `GAUGES`."""
        found = {
            what: sum(v for (n, _), v in self.items() if n == f"flashpol_{gauge}") for gauge, what in GAUGES.items()
        }
        return {what: int(count) for what, count in found.items() if count}

    def outcomes(self, listener: str) -> dict[str, int]:
        """How the listener's connections ended: counts by outcome or refusal reason, without zeros."""
        names = ("replies", "served", "timeouts", "resets", "relayed")
        found = {name: self.total(f"{name}_total", listener=listener) for name in names}
        for (name, pairs), value in self.items():
            labels = dict(pairs)
            if name == "flashpol_refused_total" and labels["listener"] == listener:
                found[labels["reason"]] = value
        return {name: int(count) for name, count in found.items() if count}

    def unaccounted(self, listener: str) -> int:
        """Accepted connections that are counted under no outcome; negative: some are counted twice."""
        accepted = int(self.total("connections_accepted_total", listener=listener))
        return accepted - sum(self.outcomes(listener).values())
