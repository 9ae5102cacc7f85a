"""Log lines about tunnel sessions (RTMPT) whose client has gone, and requests that another worker did not reply to.

Both are only counted, in C, so the log has numbers: at once, then once a minute while there are more.
"""

from collections.abc import Callable
from typing import NamedTuple

from flashpol._tunnel import ENDS
from flashpol.counters.layout import TunnelBlock
from flashpol.log.handler import log

# Seconds between two lines about one event of one listener.
PAUSE = 60.0
_GHOST = ENDS.index("ghost")


class _Kind(NamedTuple):
    """key: of the number, in JSON. text: with the listener, the number, a plural s, the seconds."""

    fields: dict[str, object]
    write: Callable[..., None]
    key: str
    text: str


GHOSTS = _Kind(
    {"event": "rtmpt-ghosts"},
    log.info,
    "sessions",
    "listener %s: ended %s tunnel session%s in %.0f s whose client sent no request for rtmpt_session_timeout",
)
FORWARDING = _Kind(
    {"event": "rtmpt-forward-failed"},
    log.warning,
    "requests",
    "listener %s: got no reply to %s request%s in %.0f s from the workers that have the sessions; their clients got "
    "404 or 503",
)


class _Watched:
    """One kind of one listener."""

    def __init__(self, kind: _Kind, block: TunnelBlock, now: float) -> None:
        self.kind = kind
        self._block = block
        self.logged = self.counted  # the counters of a predecessor in the worker's slot continue
        self.since = now  # the last line, or the last look that found nothing
        self.next_line = now

    @property
    def counted(self) -> int:
        return self._block.all("ends")[_GHOST] if self.kind is GHOSTS else self._block["forward_failures"]


class TunnelLog:
    """Of one worker, whose counters it reads. now: seconds of a clock that does not go back."""

    def __init__(self, now: float) -> None:
        self._last_look = now
        self._watched: dict[tuple[str, str], _Watched] = {}

    def add(self, name: str, block: TunnelBlock) -> None:
        """Watch the counters of a listener. Several sockets of one have the same counters."""
        for kind in (GHOSTS, FORWARDING):
            self._watched.setdefault((name, kind.key), _Watched(kind, block, self._last_look))

    def update(self, now: float, *, end: bool = False) -> None:
        """Log what is due. end: log all, due or not."""
        for (name, _), each in self._watched.items():
            number = each.counted - each.logged
            if number <= 0:
                each.since = now
            elif end or now >= each.next_line:
                self._log(name, each.kind, number, max(1.0, now - each.since))
                each.logged += number
                each.since, each.next_line = now, now + PAUSE
        self._last_look = now

    def _log(self, name: str, kind: _Kind, number: int, seconds: float) -> None:
        fields = {"listener": name, kind.key: number, "seconds": round(seconds, 1), "rate": None}
        kind.write(kind.text, name, f"{number:,}", "" if number == 1 else "s", seconds, extra=kind.fields | fields)
