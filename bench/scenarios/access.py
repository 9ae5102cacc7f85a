"""CPU per reply with access control: limits, lists of 10,000 networks and PROXY headers, each against none of them.

Servers of the same build with different configurations share one CPU, the load goes to one at a time, rounds rotate,
and figures are ratios within a round. `off again` is the same as `off`: the distance of its ratio from 1 is the error
of the measurement. The load comes from 256 addresses of loopback, so the address table has 256 entries in use.
"""

import dataclasses
import json
import random
from contextlib import ExitStack
from dataclasses import dataclass

from bench import servers
from bench.measure import ratios
from bench.report import Results
from bench.scenarios.interleave import WARM_UP, interleaved, measure
from bench.servers import Server
from bench.settings import Settings
from testkit.clients import REQUEST

CLIENTS = 256
REPLIES = 5_000
TURNS = 3  # per round: a difference of a few per cent needs the median of many short turns
NETWORKS = 10_000
TARGET = 1.03
HEADER = b"PROXY TCP4 192.0.2.77 198.51.100.1 40000 843\r\n"

OFF = "max_address_connections = 0"
LIMITS = (
    "max_address_connections = 1000\nmax_address_rate = 60000\nmax_connections = 100000\nmax_worker_connections = 50000"
)


@dataclass(frozen=True)
class Candidate:
    """One configuration: lines of [server] and of the listener, and the bytes that a client sends."""

    name: str
    server: str
    listener: str = ""
    request: bytes = REQUEST
    at_most: float | None = None


def _candidates() -> list[Candidate]:
    # 10,000 of the 16 million /24 networks, spread as a blocklist's are; loopback is not among them.
    number = random.Random(843)
    parts = [(number.randrange(1, 126), number.randrange(256), number.randrange(256)) for _ in range(NETWORKS)]
    denied = {f"{a}.{b}.{c}.0/24" for a, b, c in parts}
    deny = f"deny_networks = {json.dumps(sorted(denied))}"
    proxies = 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]'
    return [
        Candidate("off", OFF),
        Candidate("off again", OFF),
        Candidate("limits", LIMITS, at_most=TARGET),
        Candidate(f"limits and {NETWORKS:,} networks", LIMITS, deny, at_most=TARGET),
        Candidate("limits, networks and PROXY", LIMITS, f"{deny}\n{proxies}", HEADER + REQUEST),
    ]


def run(settings: Settings, results: Results) -> None:
    """Add CPU per reply of each configuration, and its ratio to the one without access control."""
    if settings.peers_only:
        results.note("access: only flashpol is measured")
        return
    candidates = {each.name: each for each in _candidates()}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    with ExitStack() as stack:
        running = []
        for name, each in candidates.items():
            start = servers.flashpol(settings.server_cpu, settings=each.server, listener=each.listener,
                                     request=each.request)  # fmt: skip
            server = dataclasses.replace(stack.enter_context(start), name=name)
            server.expected.with_name("request").write_bytes(each.request)
            measure(server, CLIENTS, WARM_UP, settings.load_cpus, _options(server))
            running.append(server)
        for server in interleaved(running, settings.rounds * settings.either(TURNS, 1)):
            one = measure(server, CLIENTS, REPLIES, settings.load_cpus, _options(server))
            cpu[server.name].append(one.cpu_per_reply)
    for name, samples in cpu.items():
        results.add_spread("access", f"{name}: CPU per reply", "ns", samples, digits=0)
        if name != "off":
            quotients = ratios(samples, cpu["off"])
            target = candidates[name].at_most
            results.add_spread("access", f"{name} / off", "ratio", quotients, at_most=target, digits=3)


def _options(server: Server) -> list[str]:
    return ["--send", str(server.expected.with_name("request"))]
