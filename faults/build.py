"""Compile the C parts when they are needed."""

from pathlib import Path

from bench.build import program as compiled

NATIVE = Path(__file__).parent / "native"


def program(name: str) -> Path:
    """The compiled program `native/NAME.c`. Raises BenchError."""
    return compiled(f"faults-{name}", [NATIVE / f"{name}.c"], [NATIVE / "clients.h"])


def preload(name: str) -> Path:
    """The same, to be preloaded."""
    return compiled(f"faults-{name}.so", [NATIVE / f"{name}.c"], [], ["-shared", "-fPIC"])
