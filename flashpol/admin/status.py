"""Everything there is to know of the server as one JSON document: what the page is made of, and what scripts read.

`docs/reference.md` says what each field means; fields may be added, none changes its meaning within a version.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from flashpol._fastpath import BUCKETS, REASONS
from flashpol._pump import ENDS, FAILURES
from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.history import Sample, since
from flashpol.counters.layout import GAUGES, RELAY_GAUGES, Block, RelayBlock
from flashpol.counters.status import DRAINING, READY, STARTING
from flashpol.version import VERSION

FORMAT = 1
STATES = {STARTING: "starting", READY: "ready", DRAINING: "draining"}
# Seconds that rates are of: what happens now, and enough for a distribution.
NOW, MINUTE = 5.0, 60.0

_COUNTERS = ("accepted", "reply_bytes", "timeouts", "resets", "accept_errors", "untracked")

Json = dict[str, Any]


def status(view: AdminContext, past: Sequence[Sample] = ()) -> Json:
    """The state of the server. `past`: earlier samples, oldest first; without them nothing is said of rates."""
    blocks = {facts.listener: view.totals.total(facts.listener) for facts in view.facts}
    sample = Sample.taken(view, blocks)
    server = view.status
    return {
        "format": FORMAT,
        "version": VERSION,
        "state": STATES[server.state],
        "time": time.time(),
        "reload": {
            "successful": bool(server.reload_successful),
            "timestamp": server.reload_timestamp,
            "error": server.reload_error,
        },
        "bucket_bounds_seconds": list(BUCKETS),
        "total": _counters(sample.total) | _gauges(sample.total),
        "listeners": [
            _described(facts) | _counters(blocks[facts.listener]) | _gauges(blocks[facts.listener]) | _queue(view, i)
            for i, facts in enumerate(view.facts)
        ],
        "upstreams": [
            {"listener": listener, "upstream": upstream}
            | _relayed(block)
            | {name: block[name] for name in RELAY_GAUGES}
            for (listener, upstream), block in sample.relayed.items()
        ],
        "workers": list(_workers(view)),
        "draining_workers": view.totals.draining_workers(view.shared),
        "now": _window(sample, since(past, sample.at, NOW)),
        "minute": _window(sample, since(past, sample.at, MINUTE)),
    }


def _counters(block: Block) -> Json:
    return {
        **{name: block[name] for name in _COUNTERS},
        "replies": block.replies,
        "relayed": sum(block.all("relayed")),
        "refused": dict(zip(REASONS, block.all("refused"), strict=True)),
        "duration_counts": block.all("buckets"),
        "duration_seconds": block["duration_ns"] / 1e9,
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


def _described(facts: ListenerInfo) -> Json:
    return {
        "name": facts.listener,
        "address": facts.address,
        "port": facts.port,
        "served_from": facts.served_from,
        "dialect": facts.dialect,
        "policy": facts.policy,
        "sha256": facts.sha256,
        "bytes": len(facts.reply),
    }


def _queue(view: AdminContext, listener: int) -> Json:
    queues = [view.shared.queue(slot, listener) for slot in range(view.shared.slots)]
    length, limit = sum(queue.length for queue in queues), sum(queue.limit for queue in queues)
    return {"accept_queue": {"length": length, "limit": limit}}


def _workers(view: AdminContext) -> Iterator[Json]:
    for slot in range(view.shared.slots):
        process = view.shared.process(slot)
        yield {
            "slot": slot,
            "pid": process.pid,
            "up": process.serving,
            "lag_seconds": process.lag,
            "restarts": view.totals.restarts(slot),
            "cpu_seconds": process.cpu_ns / 1e9 if process.observed else None,
            "resident_bytes": process.resident_bytes if process.observed else None,
        }


def _window(new: Sample, old: Sample | None) -> Json | None:
    """What was counted between two samples; None if the earlier one is not there."""
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
        "workers": {
            str(pid): seconds - old.cpu_seconds[pid]
            for pid, seconds in new.cpu_seconds.items()
            if pid in old.cpu_seconds
        },
    }
