"""Compile the C parts when they are needed: into ``build/bench`` of the repository, which git ignores."""

import os
import subprocess
from pathlib import Path

from bench import BenchError

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
COMPILE_SECONDS = 120


def load_generator() -> Path:
    """The compiled load generator."""
    return _program("loadgen", sorted((HERE / "loadgen").glob("*.c")), sorted((HERE / "loadgen").glob("*.h")))


def epoll_yardstick() -> Path:
    """The compiled plain C epoll server."""
    return _program("epoll", [HERE / "yardsticks" / "epoll.c"], [])


def _program(name: str, sources: list[Path], headers: list[Path]) -> Path:
    program = BUILD / name
    newest = max(path.stat().st_mtime for path in [*sources, *headers, Path(__file__)])
    if program.exists() and program.stat().st_mtime > newest:
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    # Compiled beside and renamed: a second run at the same time never executes half a file.
    fresh = program.with_name(f"{name}.{os.getpid()}")
    command = [os.environ.get("CC", "cc"), *FLAGS, "-o", str(fresh), *map(str, sources)]
    try:
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except FileNotFoundError:
        raise BenchError(f"no C compiler: install one, or name it in CC (tried {command[0]})") from None
    if result.returncode != 0:
        raise BenchError(f"{name} does not compile:\n{result.stderr}")
    fresh.rename(program)
    return program
