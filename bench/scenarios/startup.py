"""Time from exec to the first reply: how long a restart, or a socket-activated start, makes clients wait."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from bench import servers
from bench.report import Results
from bench.servers import OURS, Server
from bench.settings import Settings

STARTS = 7
TARGET_SECONDS = 0.5


def run(settings: Settings, results: Results) -> None:
    """Add the time from exec to the first reply. The servers are not pinned, as daemons are not while they start."""
    for peer in servers.PEERS:
        if (settings.peers_only and peer.name == OURS) or peer.missing():
            continue
        _start(peer.start)  # not counted: it fills the page cache, and writes byte code as an installation does
        samples = [_start(peer.start) for _ in range(settings.turns(STARTS))]
        target = TARGET_SECONDS if peer.name == OURS else None
        results.add_spread("startup", f"{peer.name}: exec to first reply", "s", samples, at_most=target, digits=3)


def _start(start: Callable[..., AbstractContextManager[Server]]) -> float:
    with start() as server:
        return server.started_in
