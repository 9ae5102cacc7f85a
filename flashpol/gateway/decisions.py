"""What the gateway decides about content in Ruffle, for `flashpol decide` and `/-/decide`: their client `ruffle`.

Content that connects to a port is led to the WebSocket paths that are for this port, and the rule of each of them
judges the origin of the page. So the policy alone says nothing: a path may have other `origins`, and a listener may
have no path for the port.
"""

import re
from collections.abc import Callable, Sequence

from flashpol.config import Listener, WebSocketPath
from flashpol.gateway.origins import Origins
from flashpol.policy import Decision
from flashpol.policy.clients.query import Content
from flashpol.policy.clients.ruffle import CLIENT, NULL, refused_words
from flashpol.policy.clients.sandboxes import AIR, RUFFLE_DESKTOP

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\\]+", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def paths_for(listener: Listener, port: int) -> list[WebSocketPath]:
    """The WebSocket paths that content is led to when it connects to this port."""
    return [path for path in listener.websocket if listener.port_of(path) == port]


def with_gateway(
    decisions: Sequence[Decision],
    listener: Listener | None,
    name: str,
    content: str,
    port: int,
    rule: Callable[[WebSocketPath], Origins],
    sandbox: str | None = None,
) -> list[Decision]:
    """The decisions of `policy.Decider`, with what the gateway decides in place of that of `ruffle`: one for each
    path that is for this port, or a refusal if there is none.

    listener: None for one without WebSocket; `name` is what it is called. rule: the rule of one of its paths. The other
    arguments are those of `Decider.decide`, which has accepted them.
    """
    origins = _origins(content, sandbox)
    made: list[Decision] = []
    for each in decisions:
        if each.client != CLIENT or not origins:
            made.append(each)
        elif listener and (paths := paths_for(listener, port)):
            made += (_decision(name, path, rule(path), origins) for path in paths)
        else:
            made.append(Decision(CLIENT, False, _no_path(listener, name, port)))
    return made


def _origins(content: str, sandbox: str | None) -> list[str]:
    """What a browser writes into Origin for a page from there: both possible ones for a domain alone, and none for
    content that is not on a web page, which no gateway sees."""
    place = Content.parse(content)
    if sandbox == RUFFLE_DESKTOP:
        return []
    if place.scheme in _DEFAULT_PORTS:
        suffix = "" if place.port in (None, _DEFAULT_PORTS[place.scheme]) else f":{place.port}"
        return [f"{place.scheme}://{place.host}{suffix}"]
    if not place.scheme and place.host != NULL:
        return [f"{scheme}://{place.host}" for scheme in _DEFAULT_PORTS]
    if (found := _ORIGIN.match(content)) and not place.is_file:
        return [found[0]]  # such as app://HOST, which is no content of AIR
    return [] if place.sandbox == AIR else [NULL]


def _decision(name: str, path: WebSocketPath, rule: Origins, origins: Sequence[str]) -> Decision:
    verdicts = [rule.judge([origin.encode()]) for origin in origins]
    verdict = min(verdicts, key=lambda each: each.allowed)
    reason = f"WebSocket path {path.path} of listener {name}: {verdict.reason}"
    if any(each.allowed is not verdict.allowed for each in verdicts):
        other = origins[1 - verdicts.index(verdict)]
        reason += f"; {other} may: write the URL of the page, as a domain does not say which it is"
    words = "" if verdict.allowed else refused_words(verdict.status)
    return Decision(CLIENT, verdict.allowed, reason, verdict.line, verdict.column, words)


def _no_path(listener: Listener | None, name: str, port: int) -> str:
    if not listener or not listener.websocket:
        why = "it has no websocket"
    elif ports := sorted({known for path in listener.websocket if (known := listener.port_of(path))}):
        why = f"its paths are for {', '.join(map(str, ports))}"
    else:
        why = "its port is unknown before it is bound: set served_from"
    return f"no WebSocket path of listener {name} is for port {port}: {why}"
