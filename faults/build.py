"""Compile the C parts when they are needed: into ``build/faults`` of the repository, which git ignores."""

import os
import subprocess
from pathlib import Path

from faults import FaultsError

NATIVE = Path(__file__).parent / "native"
BUILD = NATIVE.parents[1] / "build" / "faults"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
COMPILE_SECONDS = 120


def program(name: str) -> Path:
    """The compiled program `native/NAME.c`."""
    return _compiled(name, NATIVE / f"{name}.c")


def library(name: str) -> Path:
    """The same, to be preloaded."""
    return _compiled(f"{name}.so", NATIVE / f"{name}.c", "-shared", "-fPIC")


def _compiled(name: str, source: Path, *flags: str) -> Path:
    target = BUILD / name
    newest = max(path.stat().st_mtime for path in (source, NATIVE / "clients.h", Path(__file__)))
    if target.exists() and target.stat().st_mtime > newest:
        return target
    BUILD.mkdir(parents=True, exist_ok=True)
    # Compiled beside and renamed: a second run at the same time never executes half a file.
    fresh = target.with_name(f"{name}.{os.getpid()}")
    command = [os.environ.get("CC", "cc"), *FLAGS, *flags, "-o", str(fresh), str(source)]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except FileNotFoundError:
        raise FaultsError(f"no C compiler: install one, or name it in CC (tried {command[0]})") from None
    if done.returncode != 0:
        raise FaultsError(f"{source.name} does not compile:\n{done.stderr}")
    fresh.rename(target)
    return target
