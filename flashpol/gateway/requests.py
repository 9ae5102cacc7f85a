"""Decides about the HTTP requests of a listener: a WebSocket, a policy file, the application's own, or none of these.

Pure: a decision is a reply, an upgrade, or to relay the connection as it is. It takes microseconds, as it is made in
the hub; `worker.requests` carries it out.
"""

from typing import NamedTuple

from flashpol._fastpath import RequestHead
from flashpol.config import EVERY_PATH, RELAY, Listener
from flashpol.gateway import handshake, replies
from flashpol.gateway.origins import rule_of
from flashpol.gateway.url_policies import UrlReplies
from flashpol.policy.model import shown

_GET, _HEAD = b"GET", b"HEAD"


class Reply(NamedTuple):
    """What the client gets. outcome: what the connection counts as, `served` or a reason of `refused_total`.

    path: the number of the WebSocket path that was asked for, and `result` as the metric of upgrades names it; None for
    another request. reason, origin, line: for the log; `line` is that of the policy.
    """

    data: bytes
    outcome: str
    path: int | None = None
    result: str = ""
    reason: str = ""
    origin: str = ""
    line: int | None = None


class Upgrade(NamedTuple):
    """The request opens a WebSocket at path number `path`; `reply` is for when the upstream is reached. compresses: it
    agrees on permessage-deflate."""

    path: int
    reply: bytes
    compresses: bool = False


class Gateway:
    """The rules of one listener.

    policy: what the listener serves. port: that clients connect to. files: what it serves by URL.
    """

    def __init__(self, listener: Listener, policy: bytes, port: int, files: UrlReplies | None = None) -> None:
        self._files = files
        self._relays_others = listener.other_http == RELAY and bool(listener.upstream_for("http"))
        self._paths = {path.path.encode(): number for number, path in enumerate(listener.websocket)}
        self._every = self._paths.pop(EVERY_PATH.encode(), None)
        self._compress = [path.compression for path in listener.websocket]
        self._origins = [rule_of(listener, path, policy, port) for path in listener.websocket]

    def decide(self, head: RequestHead) -> Reply | Upgrade | None:
        """None: the connection is relayed as it is."""
        decision = self._decide(head)
        if isinstance(decision, Reply) and head.method == _HEAD:
            return decision._replace(data=replies.without_body(decision.data))
        return decision

    def _decide(self, head: RequestHead) -> Reply | Upgrade | None:
        path = head.path
        found = self._files.get(path, head.method) if self._files else None
        if found:
            status, data = found
            return Reply(data, "served" if status == 200 else "http")
        number = self._paths.get(path, self._every)
        if number is not None:
            return self._decide_upgrade(head, number)
        if self._relays_others:
            return None
        # Ruffle says "connected" before it asks, so a URL that is wrong shows nowhere else.
        wanted = handshake.asks_for_websocket(handshake.grouped(head.fields))
        reason = f"there is no path {shown(path.decode('latin-1'))}" if wanted else ""
        return Reply(replies.reply(404), "http", reason=reason)

    def _decide_upgrade(self, head: RequestHead, number: int) -> Reply | Upgrade:
        if head.method != _GET:
            return Reply(replies.METHOD_NOT_ALLOWED, "http", number, "no_upgrade", "the method is not GET")
        fields = handshake.grouped(head.fields)
        refusal = handshake.refusal_of(fields)
        if head.minor == 0:  # which has no Upgrade
            refusal = refusal or handshake.OLD_HTTP
        if refusal:
            outcome = "http" if refusal.result == "no_upgrade" else "http_malformed"
            return Reply(refusal.reply, outcome, number, refusal.result, refusal.reason)
        verdict = self._origins[number].judge(handshake.values_of(fields, b"origin"))
        if verdict.allowed:
            agreed = handshake.compression(fields) if self._compress[number] else None
            return Upgrade(number, handshake.accept(fields, agreed), agreed is not None)
        outcome = "http_malformed" if verdict.status == 400 else "origin"
        data = replies.reply(verdict.status, verdict.reason)
        return Reply(data, outcome, number, verdict.result, verdict.reason, verdict.origin, verdict.line)
