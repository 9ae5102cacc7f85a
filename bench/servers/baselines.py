"""The baselines: servers in C, which show what the kernel allows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import build
from bench.servers.running import Server, free_port, on_printed_port


@contextmanager
def epoll(cpu: int | None = None, one_segment: bool = False, *, policy: bytes | None = None) -> Iterator[Server]:
    """The plain C server, or its variant that sends reply and FIN in one segment."""
    name = "C epoll, one segment" if one_segment else "C epoll"
    command = [str(build.epoll_baseline())] + (["--one-segment"] if one_segment else [])
    with on_printed_port(name, command, cpu, policy) as server:
        yield server


@contextmanager
def variant(cpu: int | None, *options: str) -> Iterator[Server]:
    """The plain C server with these options."""
    with on_printed_port(" ".join(options) or "C epoll", [str(build.epoll_baseline()), *options], cpu) as server:
        yield server


@contextmanager
def processes(count: int) -> Iterator[Server]:
    """Several one-segment servers on one port, each with an accept queue, as flashpol's workers have."""
    options = ["--one-segment", f"--port={free_port()}"]
    with ExitStack() as stack:
        first, *others = [stack.enter_context(variant(None, *options)) for _ in range(count)]
        yield replace(first, name=f"C epoll, one segment, {count}", more=tuple(other.pid for other in others))


@contextmanager
def one_segment(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """The variant that sends reply and FIN in one segment, as flashpol does."""
    with epoll(cpu, one_segment=True, policy=policy) as server:
        yield server


@contextmanager
def io_uring(cpu: int | None = None, *, policy: bytes | None = None) -> Iterator[Server]:
    """The C server on io_uring, one segment."""
    with on_printed_port("C io_uring", [str(build.uring_baseline())], cpu, policy) as server:
        yield server


def io_uring_missing() -> str | None:
    """Why it cannot run here, or None."""
    if not build.has_liburing():
        return "liburing is not installed"
    if build.uring_disabled():
        return "kernel.io_uring_disabled is set"
    return None
