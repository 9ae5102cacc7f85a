"""What it costs to ask who connects: caps, lists of 10,000 networks and PROXY headers, each against none of them.

Servers of the same build with different configurations, on one CPU, the load on one at a time; rounds rotate, and
figures are ratios within a round. `off again` is the same as `off`: how far its ratio is from 1 is what the measurement
is worth. The load comes from 256 addresses of loopback, so the table of addresses has 256 entries in use.
"""

import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError, build
from bench.measure import children, cpu_ns, ratios
from bench.report import Results
from bench.settings import Settings

CLIENTS = 256
WARM_UP = 4_000
ANSWERS = 10_000
SETTLE = 0.05  # seconds until the last closes are done and accounted
START_SECONDS = 10.0
LOAD_SECONDS = 60.0
NETWORKS = 10_000
TARGET = 1.03
ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "bench" / "policy.xml"
REQUEST = b"<policy-file-request/>\0"
HEADER = b"PROXY TCP4 192.0.2.77 198.51.100.1 40000 843\r\n"

OFF = "max_address_connections = 0"
CAPS = (
    "max_address_connections = 1000\nmax_address_rate = 60000\nmax_connections = 100000\nmax_worker_connections = 50000"
)


@dataclass(frozen=True)
class Candidate:
    """One configuration: lines of [server] and of the listener, and what a client sends."""

    name: str
    server: str
    listener: str = ""
    request: bytes = REQUEST
    at_most: float | None = None


def _candidates() -> list[Candidate]:
    # 10,000 of the 16 million /24 there are, spread as those of a blocklist are; loopback is not among them.
    number = random.Random(843)
    parts = [(number.randrange(1, 126), number.randrange(256), number.randrange(256)) for _ in range(NETWORKS)]
    denied = {f"{a}.{b}.{c}.0/24" for a, b, c in parts}
    deny = f"deny_networks = {json.dumps(sorted(denied))}"
    proxies = 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]'
    return [
        Candidate("off", OFF),
        Candidate("off again", OFF),
        Candidate("caps", CAPS, at_most=TARGET),
        Candidate(f"caps and {NETWORKS:,} networks", CAPS, deny, at_most=TARGET),
        Candidate("caps, networks and PROXY", CAPS, f"{deny}\n{proxies}", HEADER + REQUEST),
    ]


@dataclass(frozen=True)
class Running:
    candidate: Candidate
    port: int
    worker: int
    place: Path


def run(settings: Settings, results: Results) -> None:
    """Add CPU per answer of each, and its ratio to the one with nothing on."""
    if settings.peers_only:
        results.notes.append("access: only flashpol is measured")
        return
    with ExitStack() as stack:
        running = [stack.enter_context(_serving(each, settings.server_cpu)) for each in _candidates()]
        cpu: dict[str, list[float]] = {each.candidate.name: [] for each in running}
        for each in running:
            _ask(each, WARM_UP, settings.load_cpu)
        for number in range(settings.rounds):
            first = number % len(running)
            for each in running[first:] + running[:first]:
                before = cpu_ns(each.worker)
                _ask(each, ANSWERS, settings.load_cpu)
                time.sleep(SETTLE)
                cpu[each.candidate.name].append((cpu_ns(each.worker) - before) / ANSWERS)
    for each in running:
        name = each.candidate.name
        results.add_spread("access", f"{name}: CPU per answer", "ns", cpu[name], digits=0)
        if name != "off":
            quotients = ratios(cpu[name], cpu["off"])
            results.add_spread("access", f"{name} / off", "ratio", quotients, at_most=each.candidate.at_most, digits=3)


@contextmanager
def _serving(candidate: Candidate, cpu: int) -> Iterator[Running]:
    with tempfile.TemporaryDirectory(prefix="flashpol-bench-") as name:
        place = Path(name)
        policy = POLICY.read_bytes()
        (place / "policy.xml").write_bytes(policy)
        (place / "expected").write_bytes(policy + b"\0")
        (place / "request").write_bytes(candidate.request)
        (place / "flashpol.toml").write_text(
            f'[server]\nworkers = 1\nadmin = "off"\n{candidate.server}\n[policies.p]\nfile = "policy.xml"\n'
            f'[[listeners]]\naddress = "127.0.0.1:0"\n{candidate.listener}\n'
        )
        command = [sys.executable, "-m", "flashpol", "serve", "-c", str(place / "flashpol.toml")]
        with (place / "stdout").open("wb") as out, (place / "stderr").open("wb") as err:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=ROOT)
        try:
            os.sched_setaffinity(process.pid, {cpu})
            port = _port(process, place)
            [worker] = children(process.pid)
            os.sched_setaffinity(worker, {cpu})
            yield Running(candidate, port, worker, place)
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def _port(process: "subprocess.Popen[bytes]", place: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        said = re.search(r"ready: .*:(\d+)$", (place / "stdout").read_text(), re.MULTILINE)
        if said:
            return int(said[1])
        time.sleep(0.005)
    raise BenchError(f"flashpol did not say that it is ready: {(place / 'stderr').read_text()[-500:]}")


def _ask(running: Running, count: int, cpu: int) -> None:
    command = [str(build.load_generator()), "closed", "--port", str(running.port), "--cpu", str(cpu)]
    command += ["--expect", str(running.place / "expected"), "--send", str(running.place / "request")]
    command += ["--connections", str(CLIENTS), "--count", str(count), "--seconds", str(LOAD_SECONDS)]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LOAD_SECONDS + 30)
    if result.returncode != 0 or json.loads(result.stdout)["answered"] != count:
        raise BenchError(f"{running.candidate.name}: not answered without error: {result.stdout}{result.stderr}")
