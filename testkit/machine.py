"""A Debian machine in a container that boots systemd: what the documents print is run there as it is printed.

`debian_root` makes the root file system once with debootstrap and keeps it; a `Machine` boots it with systemd-nspawn,
in a network namespace of its own, on an overlay that ends with the machine. Needs root.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from testkit.processes import ROOT

PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "python3-dev", "gcc", "libc6-dev", "libssl-dev",
    "openssl", "adduser", "procps",
)  # fmt: skip
CACHE = ROOT / "build" / "machines"
BOOT_SECONDS = 120
SECONDS = 300
# In a machine /src is a copy that can be written to.
PREPARE = "[ -d /src ] || cp -r /source /src; cd /src\n"


def needs_machine() -> None:
    """Skip the test where no machine can be made."""
    missing = [name for name in ("debootstrap", "systemd-nspawn", "nsenter") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root, debootstrap and systemd-container ({', '.join(missing) or 'not root'})")


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One process of tests at a time makes what several use."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def debian_root(suite: str) -> Path:
    """The root file system of a Debian release, made once with this host's mirror."""
    root = CACHE / suite
    with _locked(suite):
        made, packages = root / "made", ",".join(PACKAGES)
        if not made.exists() or made.read_text() != packages:
            # debootstrap may leave it mounted; a build that looks for packages would walk through it, too.
            unmount = ["umount", "-q", str(root / "proc")]
            subprocess.run(unmount, check=False)
            shutil.rmtree(root, ignore_errors=True)
            sites = subprocess.check_output(["apt-get", "indextargets", "--format", "$(SITE)"], text=True).split()
            mirror = [site for site in sites if not site.rstrip("/").endswith("security")][:1]
            command = ["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root), *mirror]
            done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
            subprocess.run(unmount, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
            made.write_text(packages)
    return root


@contextmanager
def source() -> Iterator[Path]:
    """A copy of this tree without what was built in it, readable in a machine as /source."""
    built = shutil.ignore_patterns("build", ".venv", ".git", "*.so", "__pycache__", "*.egg-info", "dist", ".*_cache")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source"
        shutil.copytree(ROOT, copy, ignore=built)
        yield copy


def wheels(python: str) -> Path:
    """What flashpol depends on, at run time and to be built, for a version of Python such as "3.11"."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["dependencies"] + project["build-system"]["requires"]
    folder = CACHE / f"wheels-{python}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--only-binary", ":all:", "--python-version", python, *needed]
    with _locked(folder.name):
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def run_in(root: Path, script: str, seconds: float) -> subprocess.CompletedProcess[str]:
    """A shell script in /src of `root`, without systemd, with this host's network and package index. Nothing stays.

    With `unshare --net` a command of it has a network of its own.
    """
    options = [
        f"--setenv={name}={value}" for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT"))
    ]
    shared = [Path(name) for name in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")]
    options += [f"--bind-ro={path}" for path in shared if path.exists()]
    with source() as copy:
        command = [
            "systemd-nspawn", "-q", "--register=no", "--keep-unit", "--volatile=overlay", "--pipe",
            "--resolv-conf=copy-host", "--capability=CAP_NET_ADMIN", f"--directory={root}", *options,
            f"--bind-ro={copy}:/source",
            "/bin/bash", "-euc", PREPARE + script,
        ]  # fmt: skip
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip


class Machine:
    """Boots `root`; nothing that happens in it stays. folders: of the host, readable there by their name here.

    >>> with Machine(debian_root("bookworm")) as machine:
    ...     machine.run("systemctl is-system-running")
    """

    def __init__(self, root: Path, folders: dict[Path, str] | None = None) -> None:
        self._stack = ExitStack()
        folders = {self._stack.enter_context(source()): "/source"} | (folders or {})
        self._command = [
            "systemd-nspawn", "-q", "--register=no", "--keep-unit", "--private-network", "--volatile=overlay",
            "--kill-signal=SIGRTMIN+3", "--console=pipe", f"--directory={root}", "--boot",
            *[f"--bind-ro={folder}:{name}" for folder, name in folders.items()],
        ]  # fmt: skip
        self.console: list[str] = []

    def __enter__(self) -> "Machine":
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=self._read, daemon=True).start()
        deadline = time.monotonic() + BOOT_SECONDS
        while not self._is_up():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                pytest.fail("the machine did not boot:\n" + "".join(self.console)[-3000:])
            time.sleep(0.2)
        return self

    def _is_up(self) -> bool:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children:
            return False
        self.init = int(children[0])
        command = self.command("systemctl", "is-active", "-q", "multi-user.target")
        return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode == 0

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.console.append(line)

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._end()

    def _end(self) -> None:
        self._process.terminate()  # systemd-nspawn passes --kill-signal on: an orderly shutdown
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)

    def command(self, *arguments: str) -> list[str]:
        """The same command, as one of this host that runs inside."""
        return ["nsenter", f"--target={self.init}", "--all", *arguments]

    def run(self, script: str, *, check: bool = True, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        """A shell script, in /src, that ends at the first failure. Its output is in one stream."""
        done = subprocess.run(
            self.command("/bin/bash", "-euc", PREPARE + script),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LANG": "C.UTF-8",
            },
        )
        assert not check or done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}"
        return done

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Signal a process by its number inside."""
        with suppress(ProcessLookupError):
            self.run(f"kill -{number.value} {pid}")
