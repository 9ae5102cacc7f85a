"""CPU per reply by the size of the policy, from one line to more than any client reads.

Lightspark reads 4,095 bytes, Unity 5,000; larger policies show where copying begins to count. nginx cannot return more
than 4,000 bytes.
"""

from contextlib import AbstractContextManager, ExitStack

from bench import servers
from bench.measure import ratios
from bench.report import Results
from bench.scenarios.interleave import interleaved, measure, warm_up
from bench.servers import OURS, PLAIN, Server
from bench.settings import Settings

SIZES = (128, 1_000, 4_000, 16_000, 64_000)
NGINX_MAX = 4_000
CLIENTS = 64
REPLIES = 6_000
ROUNDS = 5
CHART = "sizes"
HEAD, TAIL = b'<cross-domain-policy><allow-access-from domain="*" to-ports="*"/>', b"</cross-domain-policy>"


def policy_of(size: int) -> bytes:
    """A policy of exactly so many bytes, at least 100."""
    return HEAD + b"<!--" + b"x" * (size - len(HEAD) - len(TAIL) - 7) + b"-->" + TAIL


def run(settings: Settings, results: Results) -> None:
    """Add CPU per reply of each server by size, and the ratio to plain C."""
    for size in settings.either(SIZES, SIZES[:2]):
        cpu: dict[str, list[float]] = {}
        with ExitStack() as stack:
            running = [stack.enter_context(start) for start in _servers(size, settings)]
            counts = {server.name: warm_up(server, CLIENTS, settings.load_cpus, REPLIES) for server in running}
            for server in interleaved(running, settings.turns(ROUNDS)):
                one = measure(server, CLIENTS, counts[server.name], settings.load_cpus)
                cpu.setdefault(server.name, []).append(one.cpu_per_reply)
        for name, samples in cpu.items():
            results.add_point(CHART, name, size, samples)
            results.add_spread("sizes", f"{name}: CPU per reply of {size:,} bytes", "ns", samples, digits=0)
        if OURS in cpu:
            quotients = ratios(cpu[OURS], cpu[PLAIN])
            results.add_spread("sizes", f"{OURS} / {PLAIN} at {size:,} bytes", "ratio", quotients, digits=3)


def _servers(size: int, settings: Settings) -> list[AbstractContextManager[Server]]:
    names = [OURS, PLAIN, "C epoll, one segment", *(["nginx"] if size <= NGINX_MAX else [])]
    if settings.peers_only:
        names.remove(OURS)
    policy = policy_of(size)
    found = [peer for peer in servers.PEERS if peer.name in names and not peer.missing()]
    return [peer.start(settings.server_cpu, policy=policy) for peer in found]
