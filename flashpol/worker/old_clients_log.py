"""Log lines about TLS clients that are too old for a listener's profile.

A client that offers only CBC cipher suites is likely an AIR or Flash application. What it sees is a connection that
fails without a reason, so the log says what to change: at once, then once a minute while such clients come.
"""

from flashpol._fastpath import HANDSHAKE_FAILURES
from flashpol.counters.layout import Block
from flashpol.log.handler import log

# Seconds between two lines about one listener.
PAUSE = 60.0
_OLD_CLIENT = HANDSHAKE_FAILURES.index("old_client")


class _Listener:
    def __init__(self, block: Block, now: float) -> None:
        self.block = block
        self.logged = self.refused  # the counters of a predecessor in the worker's slot continue
        self.since = now  # the last line, or the last look that found nothing
        self.next_line = now

    @property
    def refused(self) -> int:
        return self.block.all("handshake_failures")[_OLD_CLIENT]


class OldClientsLog:
    """Of one worker, whose counters it reads. now: seconds of a clock that does not go back."""

    def __init__(self, now: float) -> None:
        self._last_look = now
        self._listeners: dict[str, _Listener] = {}

    def add(self, name: str, block: Block) -> None:
        """Watch the counters of a listener. Several sockets of one have the same counters."""
        self._listeners.setdefault(name, _Listener(block, self._last_look))

    def update(self, now: float, *, end: bool = False) -> None:
        """Log what is due. end: log all, due or not."""
        for name, each in self._listeners.items():
            refused = each.refused - each.logged
            if refused <= 0:
                each.since = now
            elif end or now >= each.next_line:
                self._log(name, refused, max(1.0, now - each.since))
                each.logged += refused
                each.since, each.next_line = now, now + PAUSE
        self._last_look = now

    def _log(self, name: str, refused: int, seconds: float) -> None:
        fields = {"event": "tls-old-clients", "listener": name, "refused": refused, "seconds": round(seconds, 1)}
        log.warning(
            "listener %s: refused %s TLS client%s in %.0f s that offered only CBC cipher suites; AIR and Flash clients "
            'need tls_profile = "flash"',
            name,
            f"{refused:,}",
            "" if refused == 1 else "s",
            seconds,
            extra=fields | {"rate": None},
        )
