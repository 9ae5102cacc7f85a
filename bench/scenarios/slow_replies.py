"""Slow replies: the kernel takes only a part, and a greenlet waits until the client reads. Thousands at once.

The clients request a large policy and never read. They have the smallest receive buffer and small segments, so that the
server's socket takes only about 50 KB. The rest of the reply waits in a greenlet.
"""

import time

from bench import BenchError, load, servers
from bench.measure import Spread, ratios, scrape, user_memory, wait_until_open
from bench.report import Figure, Results
from bench.scenarios.interleave import interleaved
from bench.servers import OURS, Server
from bench.settings import Settings

LEVELS = (1_000, 4_900)  # slow replies take at most a quarter of the descriptors, of which a process has 20,000
QUICK_LEVELS = (500,)
POLICY_BYTES = 100_000
OPTIONS = ["--ask", "1", "--receive-buffer", "2304", "--segment", "536"]
RATE = 5_000  # opened per second
TARGET_KB, TARGET_AT = 6.0, 4_900
SECONDS = 120.0
SETTLE_SECONDS = 10.0
ASKING, REPLIES, TURNS = 32, 2_000, 7
CHART = "slow_replies"


def run(settings: Settings, results: Results) -> None:
    """Add memory per slow reply at each level, and the p99 of other clients beside the largest."""
    if settings.peers_only:
        results.note("slow_replies: only flashpol is measured")
        return
    filler = b"x" * POLICY_BYTES
    policy = (
        b'<cross-domain-policy><!--%b--><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>' % filler
    )
    for level in settings.either(LEVELS, QUICK_LEVELS):
        limits = f"max_slow_replies = {level}\nreply_timeout = {SECONDS:.1f}"
        with (
            servers.flashpol(settings.server_cpu, policy=policy, settings=limits) as holding,
            servers.flashpol(settings.server_cpu, policy=policy, settings=limits) as quiet,
        ):
            _hold(holding, quiet, level, settings, results)


def _hold(holding: Server, quiet: Server, level: int, settings: Settings, results: Results) -> None:
    for server in (holding, quiet):
        load.closed(server, connections=8, count=200, cpu=settings.load_cpus)
    memory = user_memory(holding.pid)
    clients = load.SilentClients(holding, level, seconds=SECONDS, cpu=settings.load_cpus, options=OPTIONS, rate=RATE)
    with clients:
        _wait_for(holding, level)
        per_client = (user_memory(holding.pid) - memory) / level / 1024
        p99: dict[int, list[float]] = {holding.pid: [], quiet.pid: []}
        for server in interleaved([quiet, holding], settings.turns(TURNS)):
            one = load.closed(server, connections=ASKING, count=REPLIES, cpu=settings.load_cpus,
                              options=["--first", "61000"])  # fmt: skip
            p99[server.pid].append(one.p99)
    target = TARGET_KB if level == TARGET_AT else None
    results.add(Figure("slow_replies", f"memory per slow reply of {level:,}", "KB", Spread.of([per_client]), target))
    results.add_point(CHART, OURS, level, [per_client])
    beside = ratios(p99[holding.pid], p99[quiet.pid])
    results.add_spread("slow_replies", f"p99 of other clients beside {level:,} / without", "ratio", beside)


def _wait_for(server: Server, level: int) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    wait_until_open(server.pids, level, SETTLE_SECONDS)
    while True:
        _, samples = scrape(server.admin)
        held = sum(value for name, value in samples.items() if name.startswith("flashpol_slow_replies{"))
        if held == level:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"{server.name} holds {held:.0f} slow replies, expected {level}")
        time.sleep(0.05)
