"""Asks one media server in each way that its address means, at each address of its host.

All ways are tried at the same time, also those that Flash Player would not try any more: the first that works saves
its users the others, but users behind another firewall need them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flashpol.probe.exchange import Address, Exchange, Script, Timeouts, exchange
from flashpol.probe.model import Question, Role, Target
from flashpol.probe.rtmp import script
from flashpol.probe.rtmp.tunnel import Tunnel
from flashpol.probe.rtmp.url import CLIENTS, Place, Way
from flashpol.probe.throttle import MAX_CONCURRENT, Throttle
from flashpol.probe.tls.handshake import Outcome
from flashpol.probe.tls.offers import Offer

# A gateway connects to the media server before it replies to /open.
TIMEOUTS = Timeouts(reply=5.0)
_ALPN = ("http/1.1",)


def question(place: Place, **more: Any) -> Question:
    """Return the question of a probe."""
    more.setdefault("timeouts", TIMEOUTS)
    secure = any(way.secure for way in place.ways)
    return Question(named=CLIENTS, tls=secure, rtmp=place, **more)


class RtmpProber:
    """Opens the connections to one host. `offer` is what to offer inside TLS, with the host's name."""

    def __init__(self, place: Place, question: Question, throttle: Throttle, offer: Offer) -> None:
        self._place = place
        self._question = question
        self._throttle = throttle
        self._offer = offer

    def probe(self, addresses: Sequence[Address]) -> list[Target]:
        """Try every way at every address, several of them at a time."""
        with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
            wanted = [(address, way) for address in addresses for way in self._place.ways]
            return list(pool.map(lambda one: self._try(*one), wanted))

    def _try(self, address: Address, way: Way) -> Target:
        target = self._attempt(address, way, verify=True)
        if target.asked.tls is not None and target.asked.tls.outcome is Outcome.UNTRUSTED:
            untrusted, target = target.asked, self._attempt(address, way)
            target.tried["verify"] = [untrusted]
        return target

    def _attempt(self, address: Address, way: Way, *, verify: bool = False) -> Target:
        if way.tunnelled:
            asked, *more = self._tunnel(address, way, verify=verify)
        else:
            url, timeouts = self._place.url(way), self._question.timeouts
            steps = script.direct(self._place.application, url, timeouts)
            asked, more = self._connect(address, way, steps, verify=verify), []
        port = way.port if self._place.proxy is None else self._place.proxy.port
        target = Target(Role.RTMP, address, port, asked, secure=way.secure, way=way, content_connects=True)
        if more:
            target.tried["more connections"] = more
        return target

    def _tunnel(self, address: Address, way: Way, *, verify: bool) -> list[Exchange]:
        tunnel = Tunnel(self._place, way, self._question.timeouts)
        made: list[Exchange] = []
        while not made or tunnel.has_more(made[-1], len(made)):
            made.append(self._connect(address, way, tunnel.connection(), verify=verify))
        return made

    def _connect(self, address: Address, way: Way, steps: Script, *, verify: bool) -> Exchange:
        port = way.port if self._place.proxy is None else self._place.proxy.port
        offer = self._offer._replace(verify=verify and self._offer.verify, alpn=_ALPN if way.tunnelled else ())
        with self._throttle.connection():
            return exchange(address, port, steps, self._question.timeouts, offer if way.secure else None)
