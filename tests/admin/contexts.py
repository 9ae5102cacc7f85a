"""An AdminContext without a server, for tests of what is shown of one."""

import dataclasses
import time
from collections.abc import Sequence

from flashpol import _pump, _tunnel, _websocket
from flashpol._fastpath import LAYOUT
from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.history import Sample
from flashpol.counters.layout import WORD
from flashpol.counters.shared import SharedCounters
from flashpol.counters.status import READY, ServerStatus
from flashpol.counters.totals import CounterTotals, PathLabel
from flashpol.serving.certificates import CertificateFacts

SITE_CONTROL = b'<site-control permitted-cross-domain-policies="all"/>'
POLICY = (
    b"<cross-domain-policy>" + SITE_CONTROL + b"\n"
    b'<allow-access-from domain="*.example.com" to-ports="1935"/>\n</cross-domain-policy>'
)
LISTENER = ListenerInfo("master", POLICY + b"\0", policy="games", address="192.0.2.1:843", port=843, served_from=843)
TLS_LISTENER = dataclasses.replace(LISTENER, listener="secure", certificates=("games",), tls_profile="modern")
NOW, DAY = int(time.time()), 86_400
CERTIFICATE = CertificateFacts(
    "games",
    ("games.example.com", "*.example.com"),
    NOW - 30 * DAY,
    NOW + 60 * DAY,
    "ECDSA P-256",
    "4b" * 32,
    "/etc/ssl/games.pem",
    (("CN=Issuer", NOW + 700 * DAY),),
)


ROUTES = (("master", "127.0.0.1:7000"), ("master", "game.example:7000"))
WEBSOCKET_PATHS = (("master", "/chess"), ("master", "*"))
TUNNELS = ("master", "secure")


def make_context(
    listeners: Sequence[ListenerInfo] = (LISTENER,),
    slots: int = 2,
    paths: Sequence[PathLabel] = (),
    tunnels: Sequence[str] = (),
) -> AdminContext:
    """All workers serve, and every counter is 0."""
    shared, totals, status = (
        SharedCounters(slots, len(listeners), len(ROUTES), len(paths), len(tunnels)),
        CounterTotals(),
        ServerStatus(),
    )
    totals.open([each.listener for each in listeners], shared, ROUTES, paths, tunnels)
    status.state, status.reload_successful = READY, 1
    for slot in range(slots):
        shared.process(slot).up = shared.process(slot).started_ms = 1
        shared.process(slot).heartbeat_ns = time.monotonic_ns()
    return AdminContext(status, totals, shared, listeners, ROUTES, paths, tunnels)


def make_tls_context(*certificates: CertificateFacts, slots: int = 2) -> AdminContext:
    """With a listener that speaks TLS beside the plain one; by default it has one certificate, for two months."""
    context = make_context((LISTENER, TLS_LISTENER), slots)
    return dataclasses.replace(context, certificates=certificates or (CERTIFICATE,))


def make_websocket_context(slots: int = 2) -> AdminContext:
    """With two WebSocket paths."""
    return make_context(slots=slots, paths=WEBSOCKET_PATHS)


def make_rtmpt_context() -> AdminContext:
    """With tunnel sessions on two listeners."""
    return make_context((LISTENER, TLS_LISTENER), tunnels=TUNNELS)


def make_full_context() -> AdminContext:
    """With TLS, WebSocket and RTMPT."""
    context = make_context((LISTENER, TLS_LISTENER), paths=WEBSOCKET_PATHS, tunnels=TUNNELS)
    return dataclasses.replace(context, certificates=(CERTIFICATE,))


def put(shared: SharedCounters, slot: int, listener: int, field: str, *values: int) -> None:
    _write(shared.memory(slot, listener), *LAYOUT[field], values)


def put_relayed(shared: SharedCounters, slot: int, upstream: int, field: str, *values: int) -> None:
    _write(shared.relay_memory(slot, upstream), *_pump.LAYOUT[field], values)


def put_path(shared: SharedCounters, slot: int, path: int, field: str, *values: int) -> None:
    _write(shared.path_memory(slot, path), *_websocket.LAYOUT[field], values)


def put_tunnel(shared: SharedCounters, slot: int, tunnel: int, field: str, *values: int) -> None:
    _write(shared.tunnel_memory(slot, tunnel), *_tunnel.LAYOUT[field], values)


def _write(memory: memoryview, offset: int, count: int, values: Sequence[int]) -> None:
    words = memory.cast("Q")
    for i, value in zip(range(count), values, strict=True):
        words[offset // WORD + i] = value


def a_minute_ago(context: AdminContext) -> list[Sample]:
    """With the fixture `still_clock`, rates since then are over exactly a minute."""
    now = Sample.of(context)
    return [dataclasses.replace(now, at=now.at - 60)]
