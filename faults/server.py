"""A server under attack: two workers, a small policy for good clients, and other ports for some attacks."""

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
from pathlib import Path
from typing import Self

from bench.measure import children, open_files, status
from faults import FaultsError
from testkit.polling import eventually
from testkit.processes import READY, Metrics

ROOT = Path(__file__).parent.parent
POLICY = '<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
# More than the kernel takes for a client that does not read, so that a greenlet holds the rest.
LARGE_BYTES = 1_000_000
WORKERS = 2
# The small policy, the large one, and the small one with PROXY headers.
LISTENERS = ("small", "large", "proxied")
READY_SECONDS = 20.0
STOP_SECONDS = 10.0

# As a service manager does between fork and exec: the listening socket becomes descriptor 3.
PASS_SOCKET = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="main")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Server:
    """`settings`: lines of [server]. A context manager, within which the server is ready.

    environment: added to this process's. stderr: a descriptor for its log, instead of a file. inherited: a listening
    socket that it gets as from a service manager, instead of an address of its own. under: a command that executes the
    server, such as prlimit.
    """

    def __init__(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
        inherited: socket.socket | None = None,
        under: Sequence[str] = (),
    ) -> None:
        self._settings = {"workers": WORKERS, "admin": '"127.0.0.1:0"', **(settings or {})}
        self._environment = {**os.environ, **(environment or {})}
        self._stderr = stderr
        self._inherited = inherited
        self._under = [*under]
        self._files = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="flashpol-faults-")))
        self.expected = self._folder / "expected"
        self.expected.write_bytes(POLICY.encode() + b"\0")
        (self._folder / "small.xml").write_text(POLICY)
        (self._folder / "large.xml").write_text(POLICY + " " * (LARGE_BYTES - len(POLICY)))
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
        main = "systemd:main" if self._inherited else "127.0.0.1:0"
        lines = ["[server]", *(f"{name} = {value}" for name, value in self._settings.items())]
        for name in ("small", "large"):
            lines += [f"[policies.{name}]", f'file = "{name}.xml"']
        for name, address, policy in zip(
            LISTENERS, (main, *["127.0.0.1:0"] * 2), ("small", "large", "small"), strict=True
        ):
            lines += ["[[listeners]]", f'name = "{name}"', f'address = "{address}"', f'policy = "{policy}"']
        lines += ["proxy_protocol = true", 'proxy_networks = ["127.0.0.0/8"]']
        (self._folder / "flashpol.toml").write_text("\n".join(lines) + "\n")

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
        self.port, self.large_port, self.proxied_port = (
            int(address.rpartition(":")[2]) for address in ready[2].split(", ")
        )
        self.admin_port = int(ready[3].split("/")[2].rpartition(":")[2])

    def _ready(self, out: Path) -> re.Match[str] | None:
        if self.process.poll() is not None:
            raise FaultsError(f"the server ended with {self.process.returncode}: {self.log[-500:]}")
        return READY.search(out.read_text())

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

        def at_rest() -> Account | None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = self.metrics()
                if found.total("connections_open") == 0 and found.total("worker_up") == WORKERS:
                    return found
            return None

        return eventually(at_rest, "all connections ended and all workers up", seconds, error=FaultsError)


class Account(Metrics):
    """The metrics of one scrape, as an account of the connections."""

    def outcomes(self, listener: str) -> dict[str, int]:
        """How the listener's connections ended: counts by outcome or refusal reason, without zeros."""
        found = {name: self.total(f"{name}_total", listener=listener) for name in ("replies", "timeouts", "resets")}
        for (name, pairs), value in self.items():
            labels = dict(pairs)
            if name == "flashpol_refused_total" and labels["listener"] == listener:
                found[labels["reason"]] = value
        return {name: int(count) for name, count in found.items() if count}

    def unaccounted(self, listener: str) -> int:
        """Accepted connections that are counted under no outcome; negative: some are counted twice."""
        accepted = int(self.total("connections_accepted_total", listener=listener))
        return accepted - sum(self.outcomes(listener).values())
