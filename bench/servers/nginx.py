"""nginx with stream `return`, which many operators use instead."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import BenchError
from bench.servers.running import (
    BACKLOG,
    FILES,
    SILENT_TIMEOUT,
    Server,
    free_port,
    only_child,
    running,
    wait_for_reply,
    work_folder,
)

READ_AHEAD = 256  # bytes; the default of 16 KB costs a page per silent client: 4.7 KB instead of 1.1
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules")


@contextmanager
def nginx(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """One worker, `return` after `ssl_preread`: nginx must read before it replies, or RST destroys replies.

    multi_accept stays off, its default: with it a reply costs nginx 6 % more here.
    """
    program = nginx_program()
    if program is None:
        raise BenchError("nginx is not installed")
    with work_folder(policy) as folder:
        port = free_port()
        (folder / "nginx.conf").write_bytes(_configuration(folder, port))
        command = [program, "-p", str(folder), "-e", str(folder / "stderr"), "-c", str(folder / "nginx.conf")]
        with running("nginx", command, folder, cpu) as process:
            seconds = wait_for_reply("nginx", process, port, folder)
            pid = only_child("nginx", process.pid)
            yield Server("nginx", port, pid, folder / "expected", seconds, parent=process.pid, ports=(port,))


def nginx_program() -> str | None:
    """Path of nginx, or None if it is not installed."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


def missing() -> str | None:
    """Why it cannot run here, or None."""
    return None if nginx_program() else "nginx is not installed"


def _configuration(folder: Path, port: int) -> bytes:
    modules = [Path(folder, "ngx_stream_module.so") for folder in MODULES]
    load = "".join(f"load_module {module};\n" for module in modules if module.exists())  # else it is built in
    policy = (folder / "policy.xml").read_text().replace("\\", "\\\\").replace("'", "\\'")
    if "$" in policy:
        raise BenchError("nginx cannot write a $: choose a policy without one")
    text = (
        f"{load}daemon off;\nworker_processes 1;\nworker_rlimit_nofile {FILES + 500};\n"
        f"pid {folder}/pid;\nerror_log {folder}/stderr crit;\nevents {{ worker_connections {FILES}; }}\n"
        f"stream {{ access_log off; server {{ listen 127.0.0.1:{port} backlog={BACKLOG}; ssl_preread on;\n"
        f"preread_buffer_size {READ_AHEAD}; preread_timeout {SILENT_TIMEOUT:.0f}s;\n"
        f"return '{policy}\0'; }} }}\n"  # a raw NUL: nginx keeps it
    )
    return text.encode()
