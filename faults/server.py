"""A server under attack: two workers, a small policy for good clients, other ports for those who mean no good."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from bench.measure import children, open_files, status
from faults import FaultsError

ROOT = Path(__file__).parent.parent
POLICY = '<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
# More than the kernel takes for a client that does not read, so that the rest is a greenlet's work.
LARGE_BYTES = 1_000_000
WORKERS = 2
# A small policy, a large one, and the small one behind proxies.
LISTENERS = ("small", "large", "proxied")
READY_SECONDS = 20.0
STOP_SECONDS = 10.0

# What a service manager does between fork and exec: the listening socket is number 3 then.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="main")
os.execv(sys.argv[2], sys.argv[2:])
"""

T = TypeVar("T")


class Server:
    """`settings`: lines of [server]. A context manager: inside, it answers.

    environment: added to ours. stderr: a descriptor for its log, in place of a file. inherited: a listening socket that
    it takes over as a service manager would hand it, in place of an address of its own. under: a command that becomes
    the server, such as prlimit.
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
        self._place = Path(self._files.enter_context(tempfile.TemporaryDirectory(prefix="flashpol-faults-")))
        self.expected = self._place / "expected"
        self.expected.write_bytes(POLICY.encode() + b"\0")
        (self._place / "small.xml").write_text(POLICY)
        (self._place / "large.xml").write_text(POLICY + " " * (LARGE_BYTES - len(POLICY)))
        self._write_configuration()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End all of it, also what a killed arbiter left behind."""
        with self._files:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(STOP_SECONDS)
            with contextlib.suppress(ProcessLookupError):  # nothing was left
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
        (self._place / "flashpol.toml").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start it, again if it has ended; returns when it is ready."""
        command = [*self._under, sys.executable, "-m", "flashpol", "serve", "-c", str(self._place / "flashpol.toml")]
        handed = [self._inherited.fileno()] if self._inherited else []
        if handed:
            command = [sys.executable, "-c", HAND_OVER, str(handed[0]), *command]
        out, log = self._place / "stdout", self._place / "log"
        with out.open("wb") as stdout, log.open("ab") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr if self._stderr is None else self._stderr,
                start_new_session=True,
                pass_fds=handed,
            )
        said = wait_for(lambda: self._ready(out), "the ready line", READY_SECONDS).split()
        places = [word.strip(",;") for word in said if word.count(":") == 1 and word[0].isdigit()]
        self.port, self.large_port, self.proxied_port = (int(place.rpartition(":")[2]) for place in places[:3])
        self.admin_port = int(said[-1].split("/")[2].rpartition(":")[2])

    def _ready(self, out: Path) -> str:
        if self.process.poll() is not None:
            raise FaultsError(f"the server ended with {self.process.returncode}: {self.log[-500:]}")
        text = out.read_text()
        return next((line for line in text.splitlines() if "ready:" in line and "metrics on" in line), "")

    @property
    def log(self) -> str:
        return (self._place / "log").read_text(errors="replace")

    # ---------------------------------------------------------------------------------------------------- processes

    def named(self, name: str) -> list[int]:
        """Pids of its children that call themselves so, such as `worker`, lowest first."""
        found = []
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):  # it ended since it was listed
                if Path(f"/proc/{pid}/comm").read_text().startswith(f"flashpol {name}"):
                    found.append(pid)
        return found

    @property
    def workers(self) -> list[int]:
        return self.named("worker")

    def files(self) -> int:
        """Descriptors that all its processes have open."""
        return sum(open_files(pid) for pid in (self.process.pid, *children(self.process.pid)))

    def resident(self) -> int:
        """Memory that all its processes have touched and that is no file, in bytes."""
        return sum(status(pid)["RssAnon"] for pid in (self.process.pid, *children(self.process.pid)))

    # ------------------------------------------------------------------------------------------------------ accounts

    def metrics(self) -> "Metrics":
        """Raises OSError if nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=STOP_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            return Metrics(connection.getresponse().read().decode())

    def settled(self, seconds: float) -> "Metrics":
        """The metrics once no connection is open. Raises FaultsError."""

        def at_rest() -> Metrics | None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = self.metrics()
                if found.total("connections_open") == 0 and found.total("worker_up") == WORKERS:
                    return found
            return None

        return wait_for(at_rest, "all connections ended and all workers up", seconds)


class Metrics:
    """What one scrape said."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def total(self, name: str, **labels: str) -> int:
        """The sum of all samples `flashpol_NAME` with these labels."""
        return int(
            sum(
                sample.value
                for sample in self._samples
                if sample.name == f"flashpol_{name}" and labels.items() <= sample.labels.items()
            )
        )

    def outcomes(self, listener: str) -> dict[str, int]:
        """How the listener's connections ended; none that did not occur."""
        found = {name: self.total(f"{name}_total", listener=listener) for name in ("replies", "timeouts", "resets")}
        for sample in self._samples:
            if sample.name == "flashpol_refused_total" and sample.labels["listener"] == listener:
                found[sample.labels["reason"]] = int(sample.value)
        return {name: count for name, count in found.items() if count}

    def unaccounted(self, listener: str) -> int:
        """Connections that were accepted and are counted under no outcome, or under two (negative)."""
        accepted = self.total("connections_accepted_total", listener=listener)
        return accepted - sum(self.outcomes(listener).values())


def wait_for(question: Callable[[], T | None], what: str, seconds: float) -> T:
    """Ask until the answer is true; return it. Raises FaultsError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        if time.monotonic() > deadline:
            raise FaultsError(f"never came within {seconds:.0f} s: {what}")
        time.sleep(0.01)
    return answer
