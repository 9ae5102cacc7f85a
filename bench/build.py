"""Compile the C and Go parts when they are needed, into ``build/bench`` of the repository, which git ignores."""

import functools
import os
import subprocess
from pathlib import Path

from bench import BenchError

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
OPENSSL = ("-lssl", "-lcrypto")
COMPILE_SECONDS = 120


def load_generator() -> Path:
    """The compiled load generator, with the load for relays, and with TLS where OpenSSL is installed."""
    folder = HERE / "loadgen"
    sources, headers = sorted(folder.rglob("*.c")), sorted(folder.rglob("*.h"))
    if openssl_missing():
        return program("loadgen", sources, headers)
    return program("loadgen-tls", sources, headers, ["-DWITH_TLS", *OPENSSL])


@functools.cache
def openssl_missing() -> str | None:
    """Why the load generator cannot speak TLS, or None."""
    source = (
        "#include <openssl/ssl.h>\n#if OPENSSL_VERSION_NUMBER < 0x30000000L\n#error too old\n#endif\n"
        "int main(void) { return !SSL_CTX_new(TLS_client_method()); }\n"
    )
    command = [*_compiler(), "-x", "c", "-", "-o", os.devnull, *OPENSSL]
    try:
        done = subprocess.run(
            command, input=source, check=False, capture_output=True, text=True, timeout=COMPILE_SECONDS
        )
    except FileNotFoundError:
        return "there is no C compiler"
    return "the headers of OpenSSL 3.0 or later are not installed (Debian: libssl-dev)" if done.returncode else None


def epoll_baseline() -> Path:
    """The compiled plain C epoll server."""
    return program("epoll", [HERE / "baselines" / "epoll.c"], [])


def uring_baseline() -> Path:
    """The compiled io_uring server."""
    return program("uring", [HERE / "baselines" / "uring.c"], [], ["-luring"])


def has_liburing() -> bool:
    """Whether a program can be compiled and linked with liburing."""
    try:
        uring_baseline()
    except BenchError:
        return False
    return True


def uring_disabled() -> bool:
    """Whether the kernel refuses io_uring to this process: by a container's profile or a setting."""
    setting = Path("/proc/sys/kernel/io_uring_disabled")
    return not setting.exists() or setting.read_text().strip() != "0"


def go_server() -> Path:
    """The compiled Go server."""
    source, program = HERE / "baselines" / "server.go", BUILD / "goserver"
    return _built(program, [source], ["go", "build", "-o"], [str(source)])


def program(name: str, sources: list[Path], headers: list[Path], options: list[str] | None = None) -> Path:
    """A C program of these sources, compiled if it is missing or older. options: for the compiler and the linker."""
    return _built(BUILD / name, [*sources, *headers], [*_compiler(), "-o"], [*map(str, sources), *(options or [])])


def _compiler() -> list[str]:
    return [os.environ.get("CC", "cc"), *FLAGS]


def _built(program: Path, needs: list[Path], command: list[str], inputs: list[str]) -> Path:
    newest = max(path.stat().st_mtime for path in [*needs, Path(__file__)])
    if program.exists() and program.stat().st_mtime > newest:
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    # Compiled beside it and renamed, so that another run at the same time never executes half a file.
    compiled = program.with_name(f"{program.name}.{os.getpid()}")
    command = [*command, str(compiled), *inputs]
    try:
        result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except FileNotFoundError:
        raise BenchError(f"no compiler: install one, or name a C compiler in CC (tried {command[0]})") from None
    if result.returncode != 0:
        raise BenchError(f"{program.name} does not compile:\n{result.stderr}")
    compiled.rename(program)
    return program
