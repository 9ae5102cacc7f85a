"""nginx with stream `return`, which many operators use instead."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import BenchError
from bench.measure import children
from bench.servers.running import (
    BACKLOG,
    FILES,
    SILENT_TIMEOUT,
    START_SECONDS,
    Server,
    free_port,
    last_log_lines,
    only_child,
    running,
    wait_for_reply,
    work_folder,
)
from testkit.polling import eventually

READ_AHEAD = 256  # bytes; the default of 16 KB costs a page per silent client: 4.7 KB instead of 1.1
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")


@contextmanager
def nginx(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """One worker, `return` after `ssl_preread`: nginx must read before it replies, or RST destroys replies.

    multi_accept stays off, its default: with it a reply costs nginx 6 % more here.
    """
    with work_folder(policy) as folder:
        port = free_port()
        lines = f"listen 127.0.0.1:{port} backlog={BACKLOG};\n{policy_lines(folder)}"
        with started(configuration(folder, lines), folder, cpu) as process:
            seconds = wait_for_reply("nginx", process, port, folder)
            pid = only_child("nginx", process.pid)
            yield Server("nginx", port, pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


@contextmanager
def started(text: str, folder: Path, cpu: int | None) -> Iterator["subprocess.Popen[bytes]"]:
    """nginx in the foreground with this configuration."""
    program = nginx_program()
    if program is None:
        raise BenchError("nginx is not installed")
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-e", str(folder / "stderr"), "-c", str(folder / "nginx.conf")]
    with running("nginx", command, folder, cpu) as process:
        yield process


def wait_for_worker(name: str, process: "subprocess.Popen[bytes]", folder: Path) -> tuple[int, float]:
    """The pid of the only worker, which nginx starts once it listens, and the seconds since the call."""
    begin = time.monotonic()

    def found() -> list[int]:
        if process.poll() is not None:
            raise BenchError(f"{name} ended at once with status {process.returncode}: {last_log_lines(folder)}")
        return children(process.pid)

    (pid,) = eventually(found, f"{name} has a worker", START_SECONDS, error=BenchError)
    return pid, time.monotonic() - begin


def nginx_program() -> str | None:
    """Path of nginx, or None if it is not installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def missing(module: str = "stream_ssl_preread_module") -> str | None:
    """Why it cannot run here, or None. module: what it must be built with, as `nginx -V` names it."""
    program = nginx_program()
    if program is None:
        return "nginx is not installed"
    built = subprocess.run([program, "-V"], check=False, capture_output=True, text=True, timeout=10).stderr
    return None if f"--with-{module}" in built.split() else f"nginx is built without {module}"


def configuration(folder: Path, *servers: str) -> str:
    """A configuration of one worker and stream servers with these lines."""
    return f"{load('stream')}{_main(folder)}stream {{ access_log off; {_servers(servers)} }}\n"


def rtmp_configuration(folder: Path, *servers: str) -> str:
    """A configuration of one worker, which can write where this user can, and RTMP servers with these lines."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    return f"user {user};\n{load('rtmp')}{_main(folder)}rtmp {{ access_log off; {_servers(servers)} }}\n"


def http_configuration(folder: Path, *servers: str) -> str:
    """A configuration of one worker and HTTP servers with these lines."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)  # else where only root may write
    return f"{_main(folder)}http {{ access_log off; {paths} {_servers(servers)} }}\n"


def load(name: str) -> str:
    """A line that loads a module, if it is not built in."""
    modules = [Path(where, f"ngx_{name}_module.so") for where in MODULES]
    return "".join(f"load_module {module};\n" for module in modules if module.exists())  # else it is built in


def _main(folder: Path) -> str:
    return (
        f"daemon off;\nworker_processes 1;\nworker_rlimit_nofile {FILES + 500};\n"
        f"pid {folder}/pid;\nerror_log {folder}/stderr crit;\nevents {{ worker_connections {FILES}; }}\n"
    )


def _servers(servers: tuple[str, ...]) -> str:
    return " ".join(f"server {{ {lines} }}" for lines in servers)


def policy_lines(folder: Path) -> str:
    """Lines of a server that replies with this folder's policy."""
    policy = (folder / "policy.xml").read_text().replace("\\", "\\\\").replace("'", "\\'")
    if "$" in policy:
        raise BenchError("nginx cannot write a $: choose a policy without one")
    return (
        f"ssl_preread on; preread_buffer_size {READ_AHEAD}; preread_timeout {SILENT_TIMEOUT:.0f}s;\n"
        f"return '{policy}\0';"  # a raw NUL: nginx keeps it
    )
