"""The status document: everything about the server as JSON. The page is made from it, and scripts read it.

`docs/reference.md` says what each field means; fields may be added, none changes its meaning within a format.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from flashpol._fastpath import BUCKETS, HANDSHAKE_FAILURES, REASONS, TLS_VERSIONS
from flashpol._pump import ENDS, FAILURES
from flashpol._tunnel import ENDS as TUNNEL_ENDS
from flashpol._websocket import CLOSE_CODES, RESULTS, SIDES
from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.formatting import END_OF_YEARS
from flashpol.admin.history import Sample, since
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.admin.problems import Json, find_problems
from flashpol.counters.layout import (
    GAUGES,
    RELAY_GAUGES,
    TUNNEL_GAUGES,
    Block,
    HandshakeBlock,
    RelayBlock,
    TunnelBlock,
    WebSocketBlock,
)
from flashpol.counters.status import DRAINING, READY, STARTING
from flashpol.version import VERSION

FORMAT = 2
STATES = {STARTING: "starting", READY: "ready", DRAINING: "draining"}
UNKNOWN = "unknown"  # shared memory holds garbage, which must not keep the rest from being shown
# Seconds that rates are taken over: what happens now, and enough for a distribution.
NOW, MINUTE = 5.0, 60.0

# Of a connection's bytes, and the fields of a block that count them in these directions.
DIRECTIONS = ("received", "sent")
_TUNNEL_COUNTERS = (
    "sessions", "polls", "unknown", "reordered", "gaps", "repeated", "refused", "forwarded", "forward_failures",
)  # fmt: skip
_COUNTERS = ("accepted", "served", "reply_bytes", "timeouts", "resets", "accept_errors", "untracked")


def status(context: AdminContext, past: Sequence[Sample] = (), analyses: AnalysisCache | None = None) -> Json:
    """The state of the server.

    past: earlier samples, oldest first; without them there are no rates. analyses: what is known of the policies.
    """
    blocks = {each.listener: context.totals.total(each.listener) for each in context.listeners}
    sample = Sample.taken(context, blocks)
    server = context.status
    linted = analyses.linted if analyses else []
    document: Json = {
        "format": FORMAT,
        "version": VERSION,
        "state": STATES.get(server.state, UNKNOWN),
        "time": time.time(),
        "problems": [],
        "reload": {
            "successful": bool(server.reload_successful),
            "timestamp": server.reload_timestamp if server.reload_timestamp < END_OF_YEARS else 0,
            "error": server.reload_error,
        },
        "bucket_bounds_seconds": list(BUCKETS),
        "total": _counters(sample.total) | _gauges(sample.total),
        "listeners": [
            _described(each) | _counters(blocks[each.listener]) | _gauges(blocks[each.listener]) | _queue(context, i)
            for i, each in enumerate(context.listeners)
        ],
        "policies": {"linted": len(linted), "total": len(analyses.groups) if analyses else 0},
        "upstreams": [
            {"listener": listener, "upstream": upstream}
            | _relayed(block)
            | {name: block[name] for name in RELAY_GAUGES}
            for (listener, upstream), block in sample.relayed.items()
        ],
        "websocket": list(_paths(context, sample)),
        "rtmpt": [
            {"listener": listener} | _tunnels(block) | {name: block[name] for name in TUNNEL_GAUGES}
            for listener, block in sample.tunnels.items()
        ],
        "certificates": [
            asdict(each) | {"issuers": [{"subject": subject, "not_after": end} for subject, end in each.issuers]}
            for each in context.certificates
        ],
        "workers": list(_workers(context)),
        "draining_workers": context.totals.draining_workers(context.shared),
        "now": _window(sample, since(past, sample.at, NOW)),
        "minute": _window(sample, since(past, sample.at, MINUTE)),
    }
    document["problems"] = [asdict(problem) for problem in find_problems(document, context, linted)]
    return document


def _counters(block: Block) -> Json:
    return {
        **{name: block[name] for name in _COUNTERS},
        "replies": block.replies,
        "relayed": sum(block.all("relayed")),
        "refused": dict(zip(REASONS, block.all("refused"), strict=True)),
        "duration_counts": block.all("buckets"),
        "duration_seconds": block["duration_ns"] / 1e9,
        **_handshakes(block),
        "handshake_counts": block.all("handshake_buckets"),
        "handshake_seconds": block["handshake_ns"] / 1e9,
    }


def _handshakes(block: Block | HandshakeBlock) -> Json:
    return {
        "handshakes": dict(zip(TLS_VERSIONS, block.all("handshakes"), strict=True)),
        "handshake_failures": dict(zip(HANDSHAKE_FAILURES, block.all("handshake_failures"), strict=True)),
        **{name: block[name] for name in ("resumed", "unknown_names", "truncated")},
    }


def _gauges(block: Block) -> Json:
    return {name: block[name] for name in GAUGES}


def _relayed(block: RelayBlock) -> Json:
    return {
        "started": block["opened"],
        "ends": dict(zip(ENDS, block.all("ends"), strict=True)),
        "failures": dict(zip(FAILURES, block.all("failures"), strict=True)),
        "bytes": dict(zip(("client", "upstream"), block.all("sent"), strict=True)),
    }


def _paths(context: AdminContext, sample: Sample) -> Iterator[Json]:
    for number, (listener, path) in enumerate(context.paths):
        block = sample.websocket[listener, path]
        yield {
            "listener": listener,
            "path": path,
            **_websocket(block),
            "open": block["open"],
            "refused_origins": [each._asdict() for each in context.shared.last_refused(number)],
        }


def _websocket(block: WebSocketBlock) -> Json:
    closes = block.all("closes")
    return {
        "upgrades": dict(zip(RESULTS, block.all("upgrades"), strict=True)),
        "closes": {
            side: dict(zip(CLOSE_CODES, closes[i * len(CLOSE_CODES) :], strict=False)) for i, side in enumerate(SIDES)
        },
        "ping_timeouts": block["ping_timeouts"],
        "compressed_bytes": dict(zip(DIRECTIONS, block.all("deflated"), strict=True)),
        "uncompressed_bytes": dict(zip(DIRECTIONS, block.all("inflated"), strict=True)),
    }


def _tunnels(block: TunnelBlock) -> Json:
    return {
        **{name: block[name] for name in _TUNNEL_COUNTERS},
        "ends": dict(zip(TUNNEL_ENDS, block.all("ends"), strict=True)),
    }


def _described(each: ListenerInfo) -> Json:
    return {
        "name": each.listener,
        "address": each.address,
        "port": each.port,
        "served_from": each.served_from,
        "dialect": each.dialect,
        "policy": each.policy,
        "sha256": each.sha256,
        "bytes": len(each.reply),
        "certificates": each.certificates,
        "tls_profile": each.tls_profile,
        "tls_only": each.tls_only,
    }


def _queue(context: AdminContext, listener: int) -> Json:
    queues = [context.shared.queue(slot, listener) for slot in range(context.shared.slots)]
    length, limit = sum(queue.length for queue in queues), sum(queue.limit for queue in queues)
    return {"accept_queue": {"length": length, "limit": limit}}


def _workers(context: AdminContext) -> Iterator[Json]:
    for slot in range(context.shared.slots):
        process = context.shared.process(slot)
        yield {
            "slot": slot,
            "pid": process.pid,
            "up": process.serving,
            "lag_seconds": process.lag,
            "restarts": context.totals.restarts(slot),
            "cpu_seconds": process.cpu_ns / 1e9 if process.observed else None,
            "resident_bytes": process.resident_bytes if process.observed else None,
            "open_files": context.open_files(slot) if process.observed else None,
            "max_files": process.max_files if process.observed else None,
        }


def _window(new: Sample, old: Sample | None) -> Json | None:
    """What was counted between two samples; None without the earlier one."""
    if old is None:
        return None
    return {
        "seconds": new.at - old.at,
        **_counters(new.total - old.total),
        "listeners": {name: count - old.replies.get(name, 0) for name, count in new.replies.items()},
        "upstreams": [
            {"listener": listener, "upstream": upstream} | _relayed(block - old.relayed[listener, upstream])
            for (listener, upstream), block in new.relayed.items()
            if (listener, upstream) in old.relayed
        ],
        "tls_listeners": [
            {"listener": name} | _handshakes(block - old.handshakes[name])
            for name, block in new.handshakes.items()
            if name in old.handshakes
        ],
        "websocket": [
            {"listener": listener, "path": path} | _websocket(block - old.websocket[listener, path])
            for (listener, path), block in new.websocket.items()
            if (listener, path) in old.websocket
        ],
        "rtmpt": [
            {"listener": name} | _tunnels(block - old.tunnels[name])
            for name, block in new.tunnels.items()
            if name in old.tunnels
        ],
        "workers": {
            str(pid): seconds - old.cpu_seconds[pid]
            for pid, seconds in new.cpu_seconds.items()
            if pid in old.cpu_seconds
        },
        "restarts": {str(slot): number - old.restarts.get(slot, 0) for slot, number in new.restarts.items()},
    }
