"""Compile the suite's own C: the good clients, their applications, and what is preloaded into a server.

The bad clients are modes of the bench suite's load generator.
"""

import importlib.util
from pathlib import Path

from bench import BenchError, build
from bench.build import program

NATIVE = Path(__file__).parent / "native"
LOADGEN = build.HERE / "loadgen"
SHARED = [LOADGEN / "client.c"]  # sockets and addresses of clients
OPENSSL = ["-lssl", "-lcrypto"]


def preload(name: str) -> Path:
    """The compiled shared library of `native/NAME.c`. Raises BenchError."""
    return program(f"faults-{name}.so", [NATIVE / f"{name}.c"], [], ["-shared", "-fPIC"])


def good_clients() -> Path:
    """The compiled good clients. Raises BenchError."""
    return _own(
        "good",
        NATIVE / "good_rows.c",
        NATIVE / "tunnel.c",
        NATIVE / "secure.c",
        options=OPENSSL if has_openssl() else [],
    )


def hostile_clients() -> Path:
    """The compiled TLS attackers. Raises BenchError."""
    return _own("hostile", NATIVE / "hostile_options.c", NATIVE / "tunnel.c", NATIVE / "crafted.c", options=OPENSSL)


def application() -> Path:
    """The compiled application of a shared port. Raises BenchError."""
    return _own("application")


def has_openssl() -> bool:
    """Whether a program can be compiled and linked with OpenSSL."""
    try:
        program("faults-has-openssl", [NATIVE / "has_openssl.c"], [], OPENSSL)
    except BenchError:
        return False
    return True


def has_tls() -> bool:
    """Whether both the server and its clients can have TLS."""
    return importlib.util.find_spec("flashpol._tls") is not None and has_openssl()


def _own(name: str, *more: Path, options: list[str] | None = None) -> Path:
    headers = [LOADGEN / "client.h", *NATIVE.glob("*.h")]
    return program(f"faults-{name}", [NATIVE / f"{name}.c", *more, *SHARED], headers, options)
