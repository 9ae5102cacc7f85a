"""Asks one WebSocket as Ruffle's browser does, at each address of its host and for each origin.

The first origin's connection stays open for a moment and is sent a ping; the others are closed as soon as they are
open. What fails is tried once more in another way, to say why: the other side of TLS, or the same GET without Upgrade.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from flashpol.probe.exchange import Address, Exchange, Reached, Script, Timeouts, exchange
from flashpol.probe.model import Question, Role, Target
from flashpol.probe.throttle import MAX_CONCURRENT, Throttle
from flashpol.probe.tls.handshake import Outcome
from flashpol.probe.tls.offers import Offer
from flashpol.probe.websocket import script
from flashpol.probe.websocket.judgement import Kind, obstacles
from flashpol.probe.websocket.upgrade import upgrade_of
from flashpol.probe.websocket.url import Url

# A server may reach its application before it replies with 101, and wait for it. Browsers wait for minutes.
TIMEOUTS = Timeouts(reply=6.0)
# Seconds for a reply to what explains a failure: Nagios gives a whole check ten.
EXPLAIN = 2.0
# The origin of a page that no server has a reason to allow: the name cannot exist (RFC 2606).
OTHER_ORIGIN = "https://flashpol-probe.invalid"
_ALPN = ("http/1.1",)
_BROKEN_OFF = (Outcome.NOT_TLS, Outcome.CLOSED, Outcome.RESET, Outcome.TIMEOUT)


def question(url: Url, origins: Sequence[str] = (), **more: Any) -> Question:
    """Return the question of a probe. Without origins the page is on the host of the URL."""
    more.setdefault("timeouts", TIMEOUTS)
    asked = tuple(dict.fromkeys(origins or (url.origin,)))
    return Question(port=url.port, named=("browser",), tls=url.secure, websocket=url, origins=asked, **more)


class WebSocketProber:
    """Opens the connections to one host. `offer` is what to offer inside TLS, with the host's name."""

    def __init__(self, url: Url, question: Question, throttle: Throttle, offer: Offer) -> None:
        self._url = url
        self._question = question
        self._throttle = throttle
        self._offer = offer._replace(alpn=_ALPN)

    def probe(self, addresses: Sequence[Address]) -> list[Target]:
        """Ask at every address, several of them at a time."""
        with ThreadPoolExecutor(MAX_CONCURRENT) as pool:
            return list(pool.map(self._ask, addresses))

    def _ask(self, address: Address) -> Target:
        [first, *others] = self._question.origins
        asked = self._upgrade(address, first, verify=True)
        target = Target(Role.WEBSOCKET, address, self._url.port, asked, secure=self._url.secure, content_connects=True)
        if asked.tls is not None and asked.tls.outcome is Outcome.UNTRUSTED:
            target.tried["verify"] = [asked]
            target.asked = self._upgrade(address, first)
        if target.asked.reached is not Reached.CONNECTED:
            return target
        if target.asked.opened:
            for origin in others:
                target.tried[f"origin {origin}"] = [self._upgrade(address, origin, stay=False)]
            self._explain(target)
        elif target.asked.tls is not None and target.asked.tls.outcome in _BROKEN_OFF:
            target.tried["plain"] = [self._other_side(address, first)]
        return target

    def _explain(self, target: Target) -> None:
        """Try what says more about a refusal, and with `thorough` whether any page is allowed."""
        found = {obstacle.kind for obstacle in obstacles(target.asked)}
        upgrade = upgrade_of(target.asked)
        first = self._question.origins[0]
        if not self._url.secure and (upgrade.head is None or upgrade.head.status == 400):
            target.tried["tls"] = [self._other_side(target.address, first)]
        if found & {Kind.NO_UPGRADE, Kind.NOT_FOUND}:
            steps = script.plain(self._url, first, self._question.timeouts)
            target.tried["without Upgrade"] = [self._connect(target.address, steps, self._url, self._question.timeouts)]
        if self._question.thorough and upgrade.opened:
            target.tried["another origin"] = [self._upgrade(target.address, OTHER_ORIGIN, stay=False)]

    def _other_side(self, address: Address, origin: str) -> Exchange:
        """Ask in plain text instead of TLS, or the reverse."""
        timeouts = dataclasses.replace(self._question.timeouts, reply=min(EXPLAIN, self._question.timeouts.reply))
        url = self._url.in_plain_text(self._url.secure)
        return self._connect(address, script.upgrade(url, origin, timeouts, stay=False), url, timeouts)

    def _upgrade(self, address: Address, origin: str, *, stay: bool = True, verify: bool = False) -> Exchange:
        steps = script.upgrade(self._url, origin, self._question.timeouts, stay=stay)
        return self._connect(address, steps, self._url, self._question.timeouts, verify=verify)

    def _connect(
        self, address: Address, steps: Script, url: Url, timeouts: Timeouts, *, verify: bool = False
    ) -> Exchange:
        offer = self._offer if verify else self._offer._replace(verify=False)
        with self._throttle.connection():
            return exchange(address, url.port, steps, timeouts, offer if url.secure else None)
