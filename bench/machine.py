"""Describe what the figures depend on: hardware, kernel, versions, date, and the load before the run."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """A JSON object; a program that is not installed is null."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "hypervisor": " hypervisor" in cpuinfo,
        "kernel": platform.release(),
        "somaxconn": int(Path("/proc/sys/net/core/somaxconn").read_text()),
        "python": platform.python_version(),
        "cython": _version("cython"),
        "gevent": _version("gevent"),
        "greenlet": _version("greenlet"),
        "compiler": _first_line([os.environ.get("CC", "cc"), "--version"]),
        "nginx": _first_line(["nginx", "-v"]),
        "haproxy": _first_line(["haproxy", "-v"]),
        "stunnel": _first_line(["stunnel4", "-version"]),
        "openssl": _first_line(["openssl", "version"]),
        "go": _first_line(["go", "version"]),
        "node": _first_line(["node", "--version"]),
        "load_average": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(command: list[str]) -> str | None:
    program = shutil.which(command[0], path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if program is None:
        return None
    done = subprocess.run([program, *command[1:]], check=False, capture_output=True, text=True, timeout=10)
    return (done.stdout or done.stderr).splitlines()[0]
