"""The C servers: what the kernel allows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import build
from bench.servers.running import Server, free_port, that_says_its_port


@contextmanager
def epoll(cpu: int | None = None, one_segment: bool = False, *, policy: bytes | None = None) -> Iterator[Server]:
    """The plain C server, or its variant that sends reply and FIN in one segment."""
    name = "C epoll, one segment" if one_segment else "C epoll"
    command = [str(build.epoll_yardstick())] + (["--one-segment"] if one_segment else [])
    with that_says_its_port(name, command, cpu, policy) as server:
        yield server


@contextmanager
def variant(cpu: int | None, *options: str) -> Iterator[Server]:
    """The plain C server with some of its options."""
    with that_says_its_port(" ".join(options) or "C epoll", [str(build.epoll_yardstick()), *options], cpu) as server:
        yield server


@contextmanager
def processes(count: int) -> Iterator[Server]:
    """So many of the one-segment server on one port, an accept queue each, as flashpol's workers have."""
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
    with that_says_its_port("C io_uring", [str(build.uring_yardstick())], cpu, policy) as server:
        yield server


def io_uring_missing() -> str | None:
    """Why it cannot run here."""
    if not build.has_liburing():
        return "liburing is not installed"
    if build.uring_disabled():
        return "kernel.io_uring_disabled is set"
    return None
