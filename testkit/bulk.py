"""Much data: what is sent, and what is read of it, by size and hash."""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from testkit.polling import DEADLINE
from testkit.tls import RECORD, WHOLE, TlsClient


def pieces(seed: int, size: int, largest: int = 100_000) -> Iterator[bytes]:
    """Random bytes of this total size, in pieces of random sizes."""
    generator = random.Random(seed)
    pool = generator.randbytes(largest)
    while size:
        length = min(size, generator.choice([1, 17, 1000, 16384, 16385, largest]))
        at = generator.randrange(largest - length + 1)
        yield pool[at : at + length]
        size -= length


def digest_of(parts: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


@contextmanager
def threads(*functions: Callable[[], object]) -> Iterator[None]:
    """Run them beside the test; what one raises, the test raises."""
    errors: list[BaseException] = []

    def guarded(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=guarded, args=(each,), daemon=True) for each in functions]
    for thread in running:
        thread.start()
    yield
    for thread in running:
        thread.join(120)
        assert not thread.is_alive(), "a side did not end"
    if errors:
        raise errors[0]


def read_all(sock: socket.socket, pauses: int = 0) -> tuple[int, str]:
    """Size and digest of everything that comes. pauses: at so many places the reader waits until data backs up."""
    found, size = hashlib.sha256(), 0
    waiting = threading.Event()
    while data := sock.recv(RECORD if not pauses else 5000):
        found.update(data)
        size += len(data)
        if pauses:
            pauses -= 1
            waiting.wait(0.01)
    return size, found.hexdigest()


def read_plain(client: TlsClient, pauses: int = 0) -> tuple[str, int]:
    """Digest and size of what a client receives until the close_notify and FIN."""
    found, size = hashlib.sha256(), 0
    waiting = threading.Event()
    while wire := client.sock.recv(RECORD):
        client.give(wire)
        data = client.decrypt()
        found.update(data)
        size += len(data)
        if pauses:
            pauses -= 1
            waiting.wait(0.01)
    assert client.until_end() == (b"", WHOLE)
    return found.hexdigest(), size


def fill(send: Callable[[bytes], int], sock: socket.socket) -> int:
    """Send until the other side takes no more; return how many bytes were taken."""
    sock.settimeout(0.5)
    sent = 0
    try:
        while True:
            sent += send(b"x" * 16384)
    except TimeoutError:
        return sent
    finally:
        sock.settimeout(DEADLINE)


def fill_all(socks: Sequence[socket.socket]) -> list[int]:
    """Send to each until none takes any more for a while; return how many bytes each took."""
    sent = [0] * len(socks)
    progress = time.monotonic()
    for sock in socks:
        sock.setblocking(False)
    while time.monotonic() < progress + 0.5:
        for number, sock in enumerate(socks):
            with suppress(BlockingIOError):
                sent[number] += sock.send(b"x" * 65536)
                progress = time.monotonic()
        time.sleep(0.01)
    for sock in socks:
        sock.settimeout(DEADLINE)
    return sent
