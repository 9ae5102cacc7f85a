"""From exec to the first answer: what a restart, or a socket-activated start, keeps clients waiting."""

from bench import servers
from bench.report import Results
from bench.settings import Settings

STARTS = 7
TARGET_SECONDS = 0.5


def run(settings: Settings, results: Results) -> None:
    """Add the time from exec to the first answer. On any CPU: nobody pins a daemon while it starts."""
    if settings.peers_only:
        results.notes.append("startup: only flashpol is measured")
        return
    _start()  # not counted: it writes the byte code and fills the page cache, as the installation of a package does
    results.add_spread(
        "startup", "flashpol: exec to first answer", "s", [_start() for _ in range(STARTS)], at_most=TARGET_SECONDS
    )


def _start() -> float:
    with servers.flashpol() as server:
        return server.started_in
