"""Log lines about connections that a limit or a shortage refuses, with the addresses that are refused most.

Each worker logs what it refuses: at once, then once a minute while it lasts. Alerting by rates, and on anything else,
is the task of deploy/prometheus/alerts.yml.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from flashpol._fastpath import ConnectionTable
from flashpol.log.handler import log

# Seconds between two lines about one limit of one listener.
PAUSE = 60.0
# Addresses in a line. The fast path keeps 16.
SHOWN = 5
# What refused them, if it was no limit of the configuration.
_OTHER_CAUSES = {
    "capacity": "for lack of file descriptors or memory",
    "proxy_untrusted": "that did not come from proxy_networks",
    "proxy_malformed": "that did not begin with a PROXY header",
    "proxy_oversized": "whose PROXY header was too long",
    "tls_handshake": "whose TLS handshake failed",
    "tls_only": "that did not speak TLS",
}


class Refused(NamedTuple):
    """What one limit of one listener refused: a number of connections, and how many of an address at least."""

    total: int
    addresses: dict[str, int]  # those refused most first


class Event:
    """One limit of one listener refuses connections."""

    def __init__(self, since: float, now: float) -> None:
        self.since = since  # the last line, or the last look that found nothing
        self.next_line = now


class RefusalLog:
    """Of one worker. describe_limit: the settings behind a reason with their values, "max_sessions (10,000)".

    now: seconds of a clock that does not go back.
    """

    def __init__(self, describe_limit: Callable[[str], str], now: float) -> None:
        self._describe_limit = describe_limit
        self._events: dict[tuple[str, str], Event] = {}
        self._last_look = now

    def update(self, now: float, table: ConnectionTable, names: Sequence[str], *, end: bool = False) -> None:
        """Log what is due. names: of the table's listeners, of which several may have one. end: log all, due or not."""
        found: dict[tuple[str, str], list[int]] = {}
        for listener, reason in table.refusals():
            found.setdefault((names[listener], reason), []).append(listener)
        for key, event in list(self._events.items()):
            if key not in found:
                event.since = now
                if now >= event.next_line:
                    del self._events[key]
        for (name, reason), listeners in found.items():
            event = self._events.setdefault((name, reason), Event(self._last_look, now))
            if end or now >= event.next_line:
                refused = _merged(table.take_refusals(listener, reason) for listener in listeners)
                self._log(name, reason, refused, max(1.0, now - event.since))
                event.since, event.next_line = now, now + PAUSE
        self._last_look = now

    def _log(self, name: str, reason: str, refused: Refused, seconds: float) -> None:
        shown = list(refused.addresses.items())[:SHOWN]
        fields = {"event": "refusing", "listener": name, "reason": reason, "refused": refused.total}
        fields |= {"seconds": round(seconds, 1), "addresses": dict(shown), "rate": None}
        log.warning(
            "listener %s: refused %s connection%s in %.0f s %s%s",
            name,
            f"{refused.total:,}",
            "" if refused.total == 1 else "s",
            seconds,
            _OTHER_CAUSES.get(reason) or f"over {self._describe_limit(reason)}",
            "; most from " + ", ".join(f"{address} ({count:,})" for address, count in shown) if shown else "",
            extra=fields,
        )


def _merged(taken: Iterable[tuple[int, list[tuple[str, int, int]]]]) -> Refused:
    total, addresses = 0, dict[str, int]()
    for refused, rows in taken:
        total += refused
        for address, count, error in rows:
            addresses[address] = addresses.get(address, 0) + count - error
    return Refused(total, dict(sorted(addresses.items(), key=lambda row: row[1], reverse=True)))
