"""Compile the library that is preloaded into a server. The clients are the bench suite's load generator."""

from pathlib import Path

from bench.build import program

NATIVE = Path(__file__).parent / "native"


def preload(name: str) -> Path:
    """The compiled shared library of `native/NAME.c`. Raises BenchError."""
    return program(f"faults-{name}.so", [NATIVE / f"{name}.c"], [], ["-shared", "-fPIC"])
