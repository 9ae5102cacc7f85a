"""Random clients of every kind of listener, with all limits at once: every connection is counted exactly once.

python tests/test_random_clients.py --seconds 60 --seed 4 --reloads --kills     from the root of the repository
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from testkit.clients import BARE, REQUEST, connect, rest
from testkit.polling import eventually
from testkit.processes import Metrics, status
from testkit.random_applications import Applications
from testkit.random_clients import LISTENERS, PROXIED, SECURE, TLS_ONLY, Scene
from testkit.sanitizer import SANITIZED
from testkit.tls import WHOLE, tls_ask
from testkit.tls_serving import AVAILABLE

AT_ONCE = 200  # clients; more than the limits let in
ROUND_SECONDS = 8.0
WARM_UP_ROUNDS = 2
MAX_GROWTH = 1500  # kB of a worker from one round to the next
GAUGES = ("connections_open", "parked_connections", "slow_replies", "sessions", "relay_sessions_open")
OUTCOMES = ("replies_total", "relayed_total", "refused_total", "timeouts_total", "resets_total")
# Reasons of refusals that depend on how many connections there are.
LIMITS = {"capacity", "max_connections", "max_address_connections", "max_address_rate", "max_address_sessions"}
LIMITS |= {"max_sessions", "max_slow_replies"}
if AVAILABLE:
    LIMITS |= {"max_handshakes"}
# What a sanitizer or an exception leaves in the log.
FAULTS = ("AddressSanitizer", "runtime error:", "Traceback")
LINES_OF_FAULT = 50


async def disturb(scene: Scene, generator: random.Random, end: float, reloads: bool, kills: bool) -> int:
    """Reload with other limits, or kill a worker, at random times. Returns how many were killed."""
    killed, loop = 0, asyncio.get_running_loop()
    while loop.time() < end:
        await asyncio.sleep(min(generator.uniform(0.3, 2.5), max(0.0, end - loop.time())))
        if kills and generator.random() < 0.5:
            if workers := await asyncio.to_thread(lambda: scene.server.workers):
                generator.choice(workers).kill()
                killed += 1
        elif reloads:
            scene.configure()
            scene.server.process.send_signal(signal.SIGHUP)
    return killed


async def crowd(scene: Scene, seed: int, seconds: float, reloads: bool = False, kills: bool = False) -> int:
    """All clients for this time, until the server is at rest."""
    end = asyncio.get_running_loop().time() + seconds
    generator = random.Random(seed)
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(scene.wander(generator.getrandbits(32), end))
        disturbed = group.create_task(disturb(scene, generator, end, reloads, kills))
    await scene.at_rest()
    return disturbed.result()


def outcomes(metrics: Metrics, listener: str) -> Counter[str]:
    """How the listener's connections ended."""
    found: Counter[str] = Counter()
    for (name, pairs), value in metrics.items():
        labels = dict(pairs)
        outcome = name.removeprefix("flashpol_")
        if outcome in OUTCOMES and labels["listener"] == listener and value:
            found[labels.get("reason", outcome.removesuffix("_total"))] += int(value)
    return found


def check_account(scene: Scene, opened: Counter[str] | None) -> Counter[str]:
    """Nothing is open, each connection ended in one way, and as many were accepted as clients opened."""
    metrics = scene.server.metrics()
    tls_gauges = ("tls_connections_open", "tls_handshakes_open") if AVAILABLE else ()
    for gauge in (*GAUGES, "relay_connecting", *tls_gauges):
        assert metrics.total(gauge) == 0, gauge
    ends: Counter[str] = Counter()
    for listener in LISTENERS:
        ended = outcomes(metrics, listener)
        accepted = metrics.total("connections_accepted_total", listener=listener)
        assert accepted == ended.total(), (listener, accepted, ended)
        if opened is not None:
            assert accepted == opened[listener], (listener, accepted, opened[listener], ended)
        ends += ended
    assert metrics.total("relay_sessions_started_total") == metrics.total("relay_ends_total")
    if AVAILABLE and opened is not None:
        complete = metrics.total("tls_handshakes_total")
        assert 0 < complete == metrics.total("tls_handshake_duration_seconds_count")
        assert complete + metrics.total("tls_handshake_failures_total") <= sum(
            metrics.total("connections_accepted_total", listener=name) for name in SECURE
        )
    return ends


def fault(log: str, kills: bool) -> str:
    """The first fault in the log, with what follows; empty if there is none."""
    lines, faults = log.splitlines(), FAULTS if kills else (*FAULTS, " ERROR: ")
    first = next((number for number, line in enumerate(lines) if any(f in line for f in faults)), len(lines))
    return "\n".join(lines[first : first + LINES_OF_FAULT])


def residents(scene: Scene) -> list[int]:
    """kB of memory of each worker that is no file."""
    return [int(status(worker.pid)["RssAnon"].split()[0]) for worker in scene.server.workers]


async def exercise(
    folder: Path, seed: int, seconds: float, *, reloads: bool = False, kills: bool = False, rounds: int = 1
) -> tuple[Scene, Counter[str]]:
    """Random clients for this time in each round. Returns the scene, and how connections ended."""
    async with Applications(seed) as applications:
        scene = Scene(folder, seed, applications.addresses)
        with scene.server as server:
            files = server.metrics().total("worker_open_files")
            sizes, killed = [], 0
            for _ in range(rounds):
                killed += await crowd(scene, seed, seconds, reloads, kills)
                assert not scene.wrong, scene.wrong[:5]
                assert not (found := fault(server.log, kills)), found
                ends = check_account(scene, None if killed else scene.opened.copy())
                sizes.append(residents(scene))
            if not kills:
                assert server.metrics().total("worker_restarts_total") == 0
            if not reloads and not kills:
                await asyncio.to_thread(
                    eventually, lambda: server.metrics().total("worker_open_files") == files, "descriptors"
                )
                if not SANITIZED:  # which keeps what was freed
                    growth = [after - before for before, after in zip(*sizes[WARM_UP_ROUNDS - 1 :][-2:], strict=True)]
                    assert rounds <= WARM_UP_ROUNDS or max(growth) < MAX_GROWTH, sizes
            await check_good_clients(scene)
            assert not await asyncio.to_thread(server.stop)
    return scene, ends


async def check_good_clients(scene: Scene) -> None:
    """After all that, each listener replies to good clients, each of an address of its own: no place was lost."""
    for number in range(8):
        for where, listener in enumerate(LISTENERS):
            source = f"127.250.{where}.{number + 1}"
            header = f"PROXY TCP4 {source} 198.51.100.1 1 843\r\n" if listener in PROXIED else ""
            if listener in SECURE:
                ending = await asyncio.to_thread(
                    tls_ask, scene.place(listener), REQUEST, first=header.encode(), source=source
                )
                assert ending == (scene.reply(listener), WHOLE), (listener, ending.how, len(ending.data))
            if listener == TLS_ONLY:
                continue
            request = header.encode() + (BARE if listener == "silverlight" else REQUEST)
            client = await asyncio.to_thread(connect, scene.place(listener), request, source=source)
            reply = await asyncio.to_thread(rest, client)
            assert reply == scene.reply(listener), (listener, len(reply))


@pytest.mark.slow
def test_random_clients_with_reloads_each_is_counted_once(tmp_path: Path) -> None:
    _, ends = asyncio.run(exercise(tmp_path, 1, 4, reloads=True))
    assert {"replies", "relayed", "timeouts", "resets"} <= ends.keys()


@pytest.mark.slow
def test_random_clients_for_longer_reach_every_limit(tmp_path: Path) -> None:
    _, ends = asyncio.run(exercise(tmp_path, 9, 30, reloads=True))
    assert not LIMITS - ends.keys()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_random_clients_with_killed_workers_each_is_counted_once(tmp_path: Path, seed: int) -> None:
    asyncio.run(exercise(tmp_path, seed, 20, reloads=True, kills=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 9))
def test_random_clients_in_equal_rounds_leave_no_memory_and_no_descriptor(tmp_path: Path, seed: int) -> None:
    asyncio.run(exercise(tmp_path, seed, ROUND_SECONDS, rounds=WARM_UP_ROUNDS + 2))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--reloads", action="store_true")
    parser.add_argument("--kills", action="store_true")
    arguments = vars(parser.parse_args())
    print(arguments)
    with tempfile.TemporaryDirectory() as name:
        scene, ends = asyncio.run(exercise(Path(name), **arguments))
    print(
        f"{scene.opened.total():,} connections, {scene.whole.total():,} whole replies, {scene.relayed:,} bytes echoed"
    )
    print(dict(ends))


if __name__ == "__main__":
    main()
