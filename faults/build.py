"""Compile the suite's own C: the good clients, their applications, and what is preloaded into a server.

The bad clients are modes of the bench suite's load generator.
"""

from pathlib import Path

from bench import build
from bench.build import program

NATIVE = Path(__file__).parent / "native"
LOADGEN = build.HERE / "loadgen"
SHARED = [LOADGEN / "client.c"]  # sockets and addresses of clients


def preload(name: str) -> Path:
    """The compiled shared library of `native/NAME.c`. Raises BenchError."""
    return program(f"faults-{name}.so", [NATIVE / f"{name}.c"], [], ["-shared", "-fPIC"])


def good_clients() -> Path:
    """The compiled good clients. Raises BenchError."""
    return _own("good", NATIVE / "good_rows.c")


def application() -> Path:
    """The compiled application of a shared port. Raises BenchError."""
    return _own("application")


def _own(name: str, *more: Path) -> Path:
    headers = [LOADGEN / "client.h", *NATIVE.glob("*.h")]
    return program(f"faults-{name}", [NATIVE / f"{name}.c", *more, *SHARED], headers)
