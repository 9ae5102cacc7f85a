"""Attacks by clients that have completed a TLS handshake: records that are work, and streams that are not read or end.

Each has good clients with and without TLS at all four places.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench import build
from bench.measure import status
from faults.attack import AttackGroup, AttackRun
from faults.attacks.handshakes import BEGINNERS, FAR, SOME, attack_with
from faults.certificates import NAME
from faults.network import small_send_buffers
from faults.places import with_tls
from faults.server import Listener, Server
from faults.shared import shared

group = AttackGroup(
    defaults={
        "max_ratio": 3.0,
        "quick": 3.0,
        "server": shared(certificates=[NAME]),
        "rows": with_tls("games"),
        "tls": True,
    }
)

BUSY = 64  # attackers at a time that send as much as they can
DEAF = 400  # that never read
HELD_RATE = 400  # sessions that are opened in a second to be held: their handshakes are no flood
SLOW_REPLIES = 50  # max_slow_replies of each worker
MEMORY_BYTES = 16 << 20  # address space that a process may take in addition to what it starts with


@group.attack("renegotiation-flood")
def renegotiation_flood(run: AttackRun) -> None:
    """TLS 1.2 clients that ask for a new handshake again and again."""
    attack_with(run, "renegotiations", "secure:12,renegotiate:{hello-12}*30,data:{byte},loop:1", connections=BUSY)


@group.attack("key-updates")
def key_updates(run: AttackRun) -> None:
    """Sessions that update their keys, and ask the server to do so, 30 times for each byte."""
    attack_with(run, "key updates", "secure:13,records:request-update*30,data:{byte},loop:1", connections=BUSY)


@group.attack("key-update-flood")
def key_update_flood(run: AttackRun) -> None:
    """Clients that update their keys without end, and come again when they are closed."""
    attack_with(run, "key updates without end", "secure:13,records:request-update*10000,loop:1", connections=BUSY)


@group.attack("deaf-key-updates")
def deaf_key_updates(run: AttackRun) -> None:
    """The same, and what the server sends in reply is never read."""
    script = "secure:13,deaf,records:request-update*30,data:{byte},loop:2"
    attack_with(run, "key updates", script, connections=BUSY, small_window=True)


@group.attack("empty-records")
def empty_records(run: AttackRun) -> None:
    """Sessions that send 30 empty records for each byte."""
    attack_with(run, "empty records", "secure:13,records:empty*30,data:{byte},loop:1", connections=BUSY)


@group.attack("empty-record-flood")
def empty_record_flood(run: AttackRun) -> None:
    """Clients that send empty records without end, and come again when they are closed."""
    attack_with(run, "empty records without end", "secure:12,records:empty*10000,loop:1", connections=BUSY)


@group.attack("tiny-records")
def tiny_records(run: AttackRun) -> None:
    """Sessions that send each byte in a record of its own, as fast as the server takes them."""
    attack_with(run, "records of one byte", "secure:13,data:{byte},loop:1", connections=BUSY)


@group.attack("truncated-streams")
def truncated_streams(run: AttackRun) -> None:
    """Sessions that end by FIN in the middle of a record, without close_notify."""
    script = "secure:13,data:{hello},wait:20,cut:{hello}*20,fin"
    attack_with(run, "truncated sessions", script, connections=200, rate=500, addresses=SOME)


@group.attack("truncated-requests", rows=with_tls("small"))
def truncated_requests(run: AttackRun) -> None:
    """Clients of a policy port whose FIN comes in the middle of the record with their request."""
    attack_with(
        run, "truncated requests", "secure:13,cut:{request}*20,fin", "small", connections=200, rate=500, addresses=SOME
    )


@group.attack(
    "deaf-tls-replies",
    server=shared(certificates=[NAME], max_slow_replies=SLOW_REPLIES),
    rows=with_tls("slow", asked="small"),
)
def deaf_tls_replies(run: AttackRun) -> None:
    """Clients with TLS that never read a large reply take all of `max_slow_replies`."""
    script = "secure:13,deaf,data:{request}"
    attack_with(run, f"{DEAF} that never read 200 KB", script, "slow", connections=DEAF, rate=400, small_window=True)


@contextmanager
def _source() -> Iterator[Server]:
    """The application of the listener `films` is a source of bytes."""
    with subprocess.Popen(
        [str(build.load_generator()), "relay", "application"], stdout=subprocess.PIPE, text=True
    ) as source:
        try:
            assert source.stdout
            port = source.stdout.readline().split()[1]
            films = Listener("films", options={"upstream": f'"127.0.0.1:{port}"', "tls": f'["{NAME}"]'})
            with shared(more=(films,), certificates=[NAME])() as server:
                yield server
        finally:
            source.kill()


@contextmanager
def _source_with_small_buffers() -> Iterator[Server]:
    """The same; the kernel takes less for a client that does not read."""
    with small_send_buffers(), _source() as server:
        yield server


@group.attack("deaf-tls-sessions", server=_source_with_small_buffers, own_network=True, seconds=12.0, quick=8.0)
def deaf_tls_sessions(run: AttackRun) -> None:
    """Sessions with TLS, more than the pump has buffers, that ask for gigabytes and never read."""
    attack_with(
        run, "2,000 that never read a film", "secure:13,deaf,data:{film}", "films",
        connections=2_000, rate=HELD_RATE, addresses=10, small_window=True,
    )  # fmt: skip


@group.attack("slow-tls-sessions", server=_source_with_small_buffers, own_network=True, quick=5.0)
def slow_tls_sessions(run: AttackRun) -> None:
    """Sessions with TLS that ask for gigabytes and read 2 KB a second."""
    attack_with(
        run, "1,000 that read 2 KB a second", "secure:13,data:{film},sip:1024*500", "films",
        connections=1_000, rate=HELD_RATE, addresses=10, small_window=True,
    )  # fmt: skip


@group.attack("slow-tls-replies", quick=5.0, rows=with_tls("slow", asked="small"))
def slow_tls_replies(run: AttackRun) -> None:
    """Clients with TLS that read a large reply at 2 KB a second, with all defaults."""
    attack_with(
        run, "1,500 that read 200 KB at 2 KB a second", "secure:13,data:{request},sip:1024*500", "slow",
        connections=1_500, rate=HELD_RATE, addresses=SOME, small_window=True,
    )  # fmt: skip


@group.attack("bulk-tls-sessions", server=_source, max_ratio=10.0)
def bulk_tls_sessions(run: AttackRun) -> None:
    """Sessions with TLS that read gigabytes as fast as the server encrypts them."""
    attack_with(run, "100 that read films", "secure:13,data:{film}", "films", connections=100, rate=1_000)


@group.attack("half-records", quick=5.0)
def half_records(run: AttackRun) -> None:
    """Sessions that send most of a record of 16 KB, and wait: OpenSSL keeps it until it is complete."""
    script = "secure:13,data:{hello},cut:{hello-large}*16000"
    attack_with(run, "1,500 sessions with half a record", script, connections=1_500, rate=HELD_RATE, addresses=SOME)


@contextmanager
def _little_memory() -> Iterator[Server]:
    """Each process may have little more address space than a worker takes when it starts."""
    with shared(certificates=[NAME])() as usual:
        limit = max(status(pid)["VmSize"] for pid in usual.workers) + MEMORY_BYTES
    with shared(certificates=[NAME], max_address_connections=0, under=["prlimit", f"--as={limit}"])() as server:
        yield server


@group.attack("tls-no-memory", quick=5.0, server=_little_memory, rows=with_tls("games", alike=BEGINNERS, crowded=FAR))
def tls_no_memory(run: AttackRun) -> None:
    """Silent sessions with TLS take the memory of the workers (RLIMIT_AS)."""
    attack_with(
        run, f"silent sessions with TLS, {MEMORY_BYTES >> 20} MB for each process,", "secure:13",
        connections=1_500, rate=HELD_RATE, addresses=SOME,
    )  # fmt: skip


@group.attack("silent-tls-sessions", quick=5.0)
def silent_tls_sessions(run: AttackRun) -> None:
    """Silent clients of a shared port that have completed the handshake, and become sessions."""
    attack_with(run, "1,500 silent sessions with TLS", "secure:13", connections=1_500, rate=HELD_RATE, addresses=SOME)
