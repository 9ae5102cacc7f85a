"""Real processes for tests: `flashpol serve` and other commands, and what /proc says of them.

Each server is ended with all its children when its test ends, also when the test fails.
"""

import contextlib
import http.client
import io
import os
import pwd
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

from testkit.polling import DEADLINE, eventually

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / "examples" / "policy.xml"
PATIENT = ROOT / "tests" / "patient.toml"  # for `-c`: a worker that is stopped (SIGSTOP) is not replaced
READY = re.compile(r"^flashpol \S+ ready: (\d+) workers? on (.+?)(?:; metrics on (http://\S+))?$", re.M)


class Process(NamedTuple):
    """A pid and its start time, which together never name another process."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """None if it has ended, even before it is reaped."""
        fields = stat(pid)
        return cls(pid, fields[19]) if fields and fields[0] not in "ZX" else None

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def stat(pid: int) -> list[str]:
    """The fields after the name in /proc/PID/stat: state, ppid, …; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status: Uid, CapEff, VmRSS, …."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def children(pid: int) -> list[Process]:
    """The living children of a process, by pid."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    found = [Process.of(child) for child in pids if (fields := stat(child)) and fields[1] == str(pid)]
    return sorted(child for child in found if child)


def descriptors(pid: int) -> set[str]:
    """The targets of a process's descriptors, such as `socket:[4711]`."""
    found = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def listening(pid: int) -> dict[str, int]:
    """The listening TCP sockets of a process, named as in `descriptors`, and their ports."""
    own, ports = descriptors(pid), {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            if line.split(maxsplit=4)[3] == "0A" and (name := f"socket:[{line.split()[9]}]") in own:
                ports[name] = int(line.split()[1].rpartition(":")[2], 16)
    return ports


class Metrics(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """(sample name, labels) -> value."""

    @classmethod
    def parse(cls, text: str) -> Self:
        samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
        return cls({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})

    def total(self, name: str, **labels: str) -> float:
        """The sum of the samples `flashpol_NAME` with these labels; there must be at least one."""
        values = [v for (n, has), v in self.items() if n == f"flashpol_{name}" and labels.items() <= set(has)]
        assert values, f"no sample of flashpol_{name} {labels}"
        return sum(values)


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


Place = tuple[str, int]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "flashpol", *map(str, arguments)]


def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    """A command that is expected to end by itself."""
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False, **options
    )


def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`run` within this process, which takes no third of a second of CPU time; for commands without input."""
    from flashpol.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def one_line(done: subprocess.CompletedProcess[str], command: str = "flashpol serve") -> str:
    """The error of a refused command: one line on stderr, nothing on stdout, exit status 2."""
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    assert done.stderr.startswith(f"{command}: ")
    return done.stderr.removeprefix(f"{command}: ").removesuffix("\n")


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, for servers that cannot say which one the kernel gave them.

    It is below the range that the kernel gives to clients, so that no client of another test takes it meanwhile.
    """
    lowest_of_clients = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with (
            contextlib.suppress(OSError),  # it is in use
            socket.create_server((host, random.randrange(10_000, lowest_of_clients)), family=family) as probe,
        ):
            return int(probe.getsockname()[1])


def as_nobody(function: Callable[[], object]) -> str:
    """What it returns in a child process of the user `nobody`, as text; the exception if it raises. Needs root."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            user = pwd.getpwnam("nobody")
            os.setgroups([])
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            os.write(writable, str(function()).encode())
        except BaseException as error:
            os.write(writable, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writable)
    with open(readable, "rb") as pipe:
        result = pipe.read().decode()
    os.waitpid(pid, 0)
    return result


@contextlib.contextmanager
def forked(main: Callable[[], object]) -> Iterator[Process]:
    """A child of the test that calls `main` and then waits for signals."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            main()
            os.write(writable, b"x")
            while True:
                signal.pause()
        finally:
            os._exit(1)
    try:
        os.close(writable)
        assert os.read(readable, 1) == b"x", "main failed"
        child = Process.of(pid)
        assert child
        yield child
    finally:
        os.close(readable)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def hanging_load(folder: Path) -> str:
    """A prelude: as long as the file `hang` is in the folder, a policy cannot be read, as on a disk that does not
    respond. The file `hanging` appears when one is read."""
    return f"""
import pathlib, time
import flashpol.serving.policies as policies
real, folder = policies.read_file, pathlib.Path({str(folder)!r})
def read_file(path):
    if (folder / "hang").exists():
        (folder / "hanging").touch()
        while (folder / "hang").exists():
            time.sleep(0.01)
    return real(path)
policies.read_file = read_file
"""


class Flashpol:
    """`flashpol serve` as a process. On loopback, on ports the kernel picks, unless the arguments say otherwise.

    >>> with Flashpol("--allow", "*:*") as server:
    ...     ask(server.place)
    """

    def __init__(
        self,
        *arguments: str | Path,
        listen: tuple[str, ...] = ("127.0.0.1:0",),
        workers: int | None = 1,
        admin: str | None = "127.0.0.1:0",
        prelude: str = "",
        under: Sequence[str | Path] = (),
        **options: object,
    ) -> None:
        self.prelude = prelude  # Python that runs first, to shorten a constant of the server
        self.under = under  # a command that executes the server, such as setpriv
        self.options = options  # of Popen
        self.arguments = [*arguments]
        for flag, values in (("--listen", listen), ("--workers", (workers,)), ("--admin", (admin,))):
            self.arguments += [text for value in values if value is not None for text in (flag, str(value))]
        self._files = contextlib.ExitStack()
        self._seen: set[Process] = set()
        self._sockets: dict[str, int] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.push(self._files)
            self._out, self._err = (self._files.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            arguments = command("serve", *self.arguments)
            if self.prelude:
                start = "import sys; from flashpol.cli.main import main; sys.exit(main())"
                arguments[1:3] = ["-c", f"{self.prelude}\n{start}"]
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                [*map(str, self.under), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                **self.options,
            )
            undo.callback(self._end)
            ready = eventually(self._ready, "the ready line")
            self.worker_count = int(ready[1])
            self.addresses = ready[2].split(", ")
            self.url = ready[3]
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._files:
            self._end()

    def _ready(self) -> re.Match[str] | None:
        assert self.process.poll() is None, f"ended with {self.process.returncode}: {self.log}"
        return READY.search(self.out) if self.out.count("\n") >= 2 else None

    def _end(self) -> None:
        """Kill by pid, the arbiter first, so that it replaces no worker."""
        if self.process.poll() is None:
            self.children  # noqa: B018 - for _end
            self.process.kill()
            self.process.wait(DEADLINE)
        for child in self._seen:
            child.kill()

    @property
    def out(self) -> str:
        return os.pread(self._out.fileno(), 1 << 20, 0).decode()

    @property
    def log(self) -> str:
        return os.pread(self._err.fileno(), 1 << 20, 0).decode()

    @property
    def complaints(self) -> list[str]:
        """The lines of the log above INFO, but not that the tests run as root."""
        return [line for line in self.log.splitlines() if " INFO: " not in line and "workers run as root" not in line]

    # ------------------------------------------------------------------------------------------------------ addresses

    @property
    def places(self) -> list[Place]:
        pairs = [address.rpartition(":") for address in self.addresses]
        return [(host.strip("[]"), int(port)) for host, _, port in pairs]

    @property
    def place(self) -> Place:
        return self.places[0]

    @property
    def admin_place(self) -> Place:
        host, _, port = self.url.split("/")[2].rpartition(":")
        return host.strip("[]"), int(port)

    def get(self, path: str, method: str = "GET", **headers: str) -> Reply:
        connection = http.client.HTTPConnection(*self.admin_place, timeout=DEADLINE)
        if method == "POST":
            headers = {"X_Flashpol_Reload": "1"} | headers  # what a reload requires
        with contextlib.closing(connection):
            connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    def metrics(self) -> Metrics:
        return Metrics.parse(self.get("/metrics").body.decode())

    def counts(self, value: float, name: str, **labels: str) -> None:
        """Wait until the samples `flashpol_NAME` with these labels sum to `value`.

        A client sees what a worker has sent before the worker counts it.
        """
        self._reaches(value, lambda metrics: metrics.total(name, **labels), f"flashpol_{name} {labels or ''}")

    def counts_by(self, label: str, expected: dict[str, float], name: str) -> None:
        """Wait until the samples `flashpol_NAME` that are not 0 are these, by one of their labels."""

        def look(metrics: Metrics) -> dict[str, float]:
            own = ((dict(has), value) for (each, has), value in metrics.items() if each == f"flashpol_{name}")
            return {has[label]: value for has, value in own if value}

        self._reaches(expected, look, f"flashpol_{name} by {label}")

    def _reaches(self, expected: object, look: Callable[[Metrics], object], what: str) -> None:
        found = None

        def reached() -> bool:
            nonlocal found
            found = look(self.metrics())
            return found == expected

        try:
            eventually(reached)
        except AssertionError:
            raise AssertionError(f"{what} is {found}, not {expected}") from None

    def logs(self, text: str) -> None:
        """Wait until the log contains a text."""
        eventually(lambda: text in self.log, f"{text!r} in the log")

    # ------------------------------------------------------------------------------------------------------ processes

    @property
    def children(self) -> list[Process]:
        found = children(self.process.pid)
        self._seen.update(found)
        return found

    def _holding(self) -> list[tuple[Process, set[int]]]:
        """The children and the ports they listen on."""
        if not self._sockets:  # once: the arbiter keeps its sockets, and /proc/net/tcp is long after many connections
            self._sockets = listening(self.process.pid)
        held = [(child, descriptors(child.pid)) for child in self.children]
        return [(child, {self._sockets[name] for name in has & self._sockets.keys()}) for child, has in held]

    @property
    def workers(self) -> list[Process]:
        """The children that hold the sockets of all listeners, and not the admin's."""
        ports = {port for _, port in self.places}
        return [child for child, has in self._holding() if has == ports]

    def replaced(self, gone: Process, count: int) -> list[Process]:
        """Wait until there are so many workers, and `gone`, which was killed and may end later, is none of them."""
        return eventually(
            lambda: workers if len(workers := self.workers) == count and gone not in workers else None, "its successor"
        )

    @property
    def admin(self) -> Process | None:
        return next((child for child, has in self._holding() if has == {self.admin_place[1]}), None)

    @property
    def up(self) -> float:
        """How many workers report that they are up."""
        return self.metrics().total("worker_up")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the arbiter and wait; returns the exit status."""
        self.children  # noqa: B018 - for _end
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)
