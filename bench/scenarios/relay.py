"""A shared port against HAProxy in TCP mode with the same inspection, in front of the same application.

    python -m bench.scenarios.relay [--rounds N] [--only NAME…]

Both relay with one thread, pinned to one CPU; the application and its clients share the other. Each round runs both, so
that what disturbs one disturbs the other; ratios are of medians.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench import BenchError
from bench.build import _program
from bench.measure import ask, children, cpu_ns, user_memory
from bench.servers import POLICY, free_port

HERE = Path(__file__).parent
REQUEST = b"<policy-file-request/>\0".hex()
IDLE = 9_000  # conversations: two descriptors each, and 20,000 is a usual limit
SHORT = (64, 20_000, 100)  # at once, in all, bytes each way
ECHO = (64, 100, 3.0)  # connections, bytes, seconds
BULK = (4, 1 << 29)  # streams, bytes of each: 2 GiB
LUA = """local file = assert(io.open(os.getenv("POLICY"), "rb"))
local reply = file:read("a") .. "\\0"
core.register_service("policy", "tcp", function(applet)
    applet:receive(23)
    applet:send(reply)
end)
"""
HAPROXY = """global
    nbthread 1
    maxconn {connections}
    setenv POLICY {policy}
    lua-load {place}/policy.lua
defaults
    mode tcp
    maxconn {connections}
    {options}
    timeout connect 3s
    timeout client 1h
    timeout server 1h
frontend shared
    bind 127.0.0.1:{port} backlog 4096
    tcp-request inspect-delay 1s
    tcp-request content use-service lua.policy if {{ req.payload(0,23) -m bin {request} }}
    tcp-request content accept if {{ req.len gt 0 }} !{{ req.payload(0,1) -m bin 3c }}
    tcp-request content accept if {{ req.len ge 23 }}
    default_backend application
backend application
    server application 127.0.0.1:{upstream}
"""
FLASHPOL = """[server]
workers = 1
admin = "off"
max_conversations = 9900
[policies.p]
file = "{policy}"
[[listeners]]
name = "shared"
address = "127.0.0.1:{port}"
policy = "p"
upstream = "127.0.0.1:{upstream}"
"""


@dataclass
class Relay:
    name: str
    port: int
    pid: int
    samples: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, value: float) -> None:
        self.samples.setdefault(what, []).append(value)

    def median(self, what: str) -> float:
        return median(self.samples[what])


def generator() -> Path:
    return _program("relay", [HERE.parent / "loadgen" / "relay" / "relay.c"], [])


@contextmanager
def process(command: list[str], cpu: int, **options: object) -> Iterator["subprocess.Popen[bytes]"]:
    running = subprocess.Popen(
        command,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),  # noqa: PLW1509 - this program has no threads
        **options,  # type: ignore[call-overload]
    )
    try:
        yield running
    finally:
        running.terminate()
        running.wait(20)


def client(cpu: int, *arguments: object, seconds: float = 120) -> dict[str, float]:
    command = [str(generator()), *map(str, arguments)]
    with process(command, cpu, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as running:
        out, _ = running.communicate(timeout=seconds)
        if running.returncode:
            raise BenchError(f"{' '.join(command[1:])} failed")
    said: dict[str, float] = json.loads(out)
    return said


def until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 10
    expected = POLICY.read_bytes() + b"\0"
    while True:
        try:
            if ask(port) == expected:
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise BenchError(f"port {port} does not answer a policy request")
        time.sleep(0.02)


@contextmanager
def flashpol(upstream: int, cpu: int, place: Path) -> Iterator[Relay]:
    port = free_port()
    (place / "flashpol.toml").write_text(FLASHPOL.format(policy=POLICY.absolute(), port=port, upstream=upstream))
    command = [sys.executable, "-m", "flashpol", "serve", "-c", str(place / "flashpol.toml")]
    with process(command, cpu, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until_it_answers(port)
        yield Relay("flashpol", port, children(running.pid)[0])


@contextmanager
def haproxy(upstream: int, cpu: int, place: Path, *, splice: bool = False) -> Iterator[Relay]:
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
    if program is None:
        raise BenchError("HAProxy is not installed")
    port, name = free_port(), "HAProxy, splice" if splice else "HAProxy"
    options = "option splice-auto" if splice else ""
    configuration = place / f"haproxy{splice:d}.cfg"
    (place / "policy.lua").write_text(LUA)
    configuration.write_text(
        HAPROXY.format(
            policy=POLICY.absolute(),
            place=place,
            port=port,
            upstream=upstream,
            request=REQUEST,
            options=options,
            connections=2000 if splice else 9900,  # splicing takes pipes, and they descriptors
        )
    )
    with process([program, "-db", "-f", str(configuration)], cpu, stderr=subprocess.DEVNULL) as running:
        until_it_answers(port)
        yield Relay(name, port, running.pid)


def short(relay: Relay, cpu: int) -> None:
    before = cpu_ns(relay.pid)
    client(cpu, "short", relay.port, *SHORT)
    relay.add("short", (cpu_ns(relay.pid) - before) / SHORT[1] / 1000)


def echo(relay: Relay, cpu: int) -> None:
    before = cpu_ns(relay.pid)
    said = client(cpu, "echo", relay.port, *ECHO)
    relay.add("echo CPU", (cpu_ns(relay.pid) - before) / said["rounds"] / 1000)
    relay.add("echo p50", said["p50_us"])
    one = client(cpu, "echo", relay.port, 1, ECHO[1], 1.0)
    relay.add("single echo p50", one["p50_us"])


def bulk(relay: Relay, cpu: int) -> None:
    before = cpu_ns(relay.pid)
    said = client(cpu, "bulk", relay.port, *BULK)
    relay.add("bulk", (cpu_ns(relay.pid) - before) / 1e6 / (said["bytes"] / 1e9))


def idle(relay: Relay, cpu: int) -> None:
    before = user_memory(relay.pid)
    command = [str(generator()), "idle", str(relay.port), str(IDLE)]
    with process(command, cpu, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        running.stdout.readline()
        relay.add("idle", (user_memory(relay.pid) - before) / IDLE / 1024)


SCENARIOS: dict[str, tuple[Callable[[Relay, int], None], int]] = {
    "short": (short, 1), "echo": (echo, 1), "bulk": (bulk, 1), "idle": (idle, 0),
}  # fmt: skip
UNITS = {
    "short": "µs CPU a short conversation",
    "echo CPU": "µs CPU an echo",
    "echo p50": "µs p50 of an echo, 64 connections",
    "single echo p50": "µs p50 of an echo, one connection",
    "bulk": "ms CPU a GB",
    "idle": "KB an idle conversation",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    arguments = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    server, load = cpus[-1], cpus[0]
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="flashpol-bench-") as name:
        place = Path(name)
        application = stack.enter_context(process([str(generator()), "upstream"], load, stdout=subprocess.PIPE))
        assert application.stdout
        upstream = int(application.stdout.readline().split()[1])
        relays = [
            stack.enter_context(flashpol(upstream, server, place)),
            stack.enter_context(haproxy(upstream, server, place)),
            stack.enter_context(haproxy(upstream, server, place, splice=True)),
        ]
        for scenario in arguments.only:
            run, repeat = SCENARIOS[scenario]
            for _ in range(arguments.rounds if repeat else 1):
                for relay in relays if repeat else relays[:2]:
                    run(relay, load)
    for what, unit in UNITS.items():
        if what in relays[0].samples:
            ours = relays[0].median(what)
            others = (
                f"{each.name} {each.median(what):8.2f} ({ours / each.median(what):.2f})"
                for each in relays[1:]
                if what in each.samples
            )
            print(f"{unit:40} flashpol {ours:8.2f}   {'   '.join(others)}")


if __name__ == "__main__":
    main()
