"""WebSocket paths that this build cannot serve, an error; and those that let no page in, or every page: a warning in
the log, and in `flashpol check -c`.

The server runs with them. Ruffle shows a refusal to the content as a connection that ends at once, so the operator
should learn of a path that refuses everything before players do.
"""

import logging
from collections.abc import Sequence

from flashpol import _websocket
from flashpol.config import ANY_ORIGIN, BY_POLICY, EVERY_PATH, RELAY, Config, ConfigError, Listener, WebSocketPath
from flashpol.policy import Decider, DomainPattern, PolicyError, parse

MISSING = (
    "compression needs zlib, and this flashpol was built without it: install its headers (Debian: zlib1g-dev) and "
    "build again, `pip install --force-reinstall --no-deps .` in the source tree"
)

log = logging.getLogger("flashpol")


def require_zlib(config: Config) -> None:
    """Raises ConfigError if a path compresses, and the build has no zlib."""
    for listener in config.listeners:
        for path in listener.websocket:
            if path.compression and not _websocket.COMPRESSES:
                raise ConfigError(MISSING, path.location and path.location.child("compression"))


def warn_all(config: Config, replies: Sequence[bytes]) -> list[list[str]]:
    """Log the findings of all listeners, and return those of each. replies: theirs, in their order."""
    found = [find(listener, reply) for listener, reply in zip(config.listeners, replies, strict=True)]
    for listener, texts in zip(config.listeners, found, strict=True):
        name = str(listener.name or listener.address)
        for text in texts:
            log.warning("listener %s: %s", name, text, extra={"event": "websocket-warning", "listener": name})
    return found


def find(listener: Listener, policy: bytes, paths: Sequence[WebSocketPath] | None = None) -> list[str]:
    """The findings of a listener that serves this policy, a line each; none for what is not a policy. paths: those of
    the listener to look at, None for all."""
    found = []
    for path in listener.websocket if paths is None else paths:
        if path.origins == BY_POLICY and (why := _refuses_all(listener, path, policy)):
            found.append(why)
        if path.origins == ANY_ORIGIN:
            found.append(
                f'{_title(path)} has origins = "any", so every web page may connect through its visitors: list the '
                "origins of your pages, unless all may"
            )
    if paths is None and _is_open_beside(listener):
        found.append(
            "requests for other paths than those of its WebSockets are relayed to the same application, whatever the "
            'Origin, and so is what follows them on their connection: set other_http = "refuse", or add a table with '
            'path = "*"'
        )
    return found


def _is_open_beside(listener: Listener) -> bool:
    """Its application is reached by WebSocket paths, with an Origin, and by all other paths without one."""
    others = listener.upstream_for("http") if listener.other_http == RELAY else ()
    return (
        bool(listener.websocket)
        and all(path.path != EVERY_PATH for path in listener.websocket)
        and any(not {*listener.upstream_of(path)}.isdisjoint(others) for path in listener.websocket)
    )


def _title(path: WebSocketPath) -> str:
    return "WebSocket on every path" if path.path == EVERY_PATH else f"the WebSocket path {path.path}"


def _refuses_all(listener: Listener, path: WebSocketPath, policy: bytes) -> str | None:
    """Why the policy lets no page connect, if so; None where the port is not known before the address is bound."""
    port = listener.port_of(path)
    if port is None:
        return None
    try:
        grants = parse(policy).grants
    except PolicyError:  # which has a finding of its own
        return None
    fitting = [grant for grant in grants if port in grant.ports]
    decider = Decider(policy, ["flash"])
    why = None
    for grant in fitting:
        [decision] = decider.decide(f"https://{_host_of(grant.domain)}", port, served_from=listener.public_port)
        if decision.allowed:
            return None
        why = why or decision.reason
    where = f"{_title(path)} is refused to every page"
    if why:
        return f"{where}: {why}"
    if path.port is not None:
        advice = "grant it, or set port to the one that the content connects to"
    else:
        advice = "grant it, or set the port that the content connects to in [[listeners.websocket]]"
    return f'{where}: the policy "{listener.policy}" grants nothing on port {port}: {advice}'


def _host_of(domain: DomainPattern) -> str:
    """A host that the pattern is for."""
    return domain.host or "www.example.com"
