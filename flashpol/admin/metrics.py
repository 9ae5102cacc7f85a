"""Counters in shared memory -> Prometheus metric families. The only place that names a metric.

A scrape reads memory; it never asks a worker anything, and opens no file.
"""

import platform
from collections.abc import Callable, Iterator, Sequence

import gevent
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flashpol._fastpath import BUCKETS, PROTOCOLS, REASONS
from flashpol._pump import CONNECT_SECONDS, DURATION_SECONDS, ENDS, FAILURES
from flashpol.admin.context import AdminContext
from flashpol.counters.layout import Block, RelayBlock
from flashpol.counters.status import ProcessStatus
from flashpol.version import VERSION

# Name, help, and how to get the value out of a listener's totals.
_COUNTERS: tuple[tuple[str, str, Callable[[Block], float]], ...] = (
    ("connections_accepted", "Connections accepted.", lambda b: b["accepted"]),
    ("replies", "Policy requests answered.", lambda b: b.replies),
    ("reply_bytes", "Bytes of policy handed to the kernel.", lambda b: b["reply_bytes"]),
    ("timeouts", "Connections closed because a whole request or a whole reply took too long.", lambda b: b["timeouts"]),
    ("resets", "Connections the client closed or reset before it had a reply.", lambda b: b["resets"]),
    ("accept_errors", "Accepts that failed, whether for want of descriptors or memory or for a client's fault.",
     lambda b: b["accept_errors"]),
    ("untracked_connections", "Connections admitted although the table of addresses had no place for theirs.",
     lambda b: b["untracked"]),
)  # fmt: skip
_GAUGES: tuple[tuple[str, str, Callable[[Block], float]], ...] = (
    ("connections_open", "Connections open now.", lambda b: b["open"]),
    ("parked_connections", "Connections that wait, as records without a greenlet.", lambda b: b["parked"]),
    ("slow_replies", "Policy replies that clients read slowly, each with a greenlet.", lambda b: b["slow_replies"]),
    (
        "sessions",
        "Connections relayed to an upstream, or waiting to be, each with a greenlet.",
        lambda b: b["sessions"],
    ),
)
# Of an upstream.
_RELAY: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[RelayBlock], float]], ...] = (
    (CounterMetricFamily, "relay_sessions_started", "Conversations with an upstream that accepted them.",
     lambda b: b["opened"]),
    (GaugeMetricFamily, "relay_sessions_open", "Conversations now.", lambda b: b["open"]),
    (GaugeMetricFamily, "relay_connecting", "Connections to the upstream that it has not accepted yet.",
     lambda b: b["connecting"]),
)  # fmt: skip
# Label, its values, and the words of a block that count them.
_RELAY_KINDS = (
    ("relay_ends", "Conversations that ended, by who closed first, reset, or what cut them.", "by", ENDS, "ends"),
    ("relay_connect_failures", "Upstreams that could not be reached, by reason.", "reason", FAILURES, "failures"),
    ("relay_bytes", "Bytes relayed, by who sent them.", "sender", ("client", "upstream"), "sent"),
)
_RELAY_TIMES = (
    ("relay_connect_duration_seconds", "From connecting to the upstream to its acceptance.", "connect",
     CONNECT_SECONDS),
    ("relay_session_duration_seconds", "From the upstream's acceptance to the end.", "duration",
     DURATION_SECONDS),
)  # fmt: skip
_PROCESS: tuple[tuple[str, str, Callable[[ProcessStatus], float]], ...] = (
    ("worker_up", "1 if the worker serves; 0 while it is down or its loop does not turn.", lambda s: s.serving),
    ("loop_lag_seconds", "How late the worker's last timer was, or its next one is.", lambda s: s.lag),
)
# Of a process that there is.
_USAGE: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[ProcessStatus], float]], ...] = (
    (CounterMetricFamily, "worker_cpu_seconds", "CPU the worker has used.", lambda s: s.cpu_ns / 1e9),
    (GaugeMetricFamily, "worker_resident_memory_bytes", "Resident memory of the worker.", lambda s: s.resident_bytes),
    (GaugeMetricFamily, "worker_start_time_seconds", "When it started, since the epoch.", lambda s: s.started_ms / 1e3),
    (GaugeMetricFamily, "worker_max_files", "Descriptors the worker may have open.", lambda s: s.max_files),
)


class FlashpolCollector(Collector):
    """Builds all families from shared memory at each scrape."""

    def __init__(self, view: AdminContext) -> None:
        self._view = view
        self._shared = view.shared
        self._facts = view.facts

    def describe(self) -> Iterator[Metric]:
        """The families without samples: registering need not collect."""
        for family in self.collect():
            family.samples.clear()
            yield family

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        yield from self._relaying()
        yield from self._processes()
        yield from self._configuration()

    def _traffic(self) -> Iterator[Metric]:
        totals = [(facts.listener, self._view.totals.total(facts.listener)) for facts in self._facts]
        for name, text, value in _COUNTERS:
            counter = CounterMetricFamily(f"flashpol_{name}", text, labels=["listener"])
            for listener, block in totals:
                counter.add_metric([listener], value(block))
            yield counter
        for name, text, value in _GAUGES:
            gauge = GaugeMetricFamily(f"flashpol_{name}", text, labels=["listener"])
            for listener, block in totals:
                gauge.add_metric([listener], value(block))
            yield gauge
        refused = CounterMetricFamily(
            "flashpol_refused", "Connections refused, by reason.", labels=["listener", "reason"]
        )
        relayed = CounterMetricFamily(
            "flashpol_relayed",
            "Connections to a shared port that were relayed and are over, by protocol.",
            labels=["listener", "protocol"],
        )
        duration = HistogramMetricFamily(
            "flashpol_request_duration_seconds",
            "From accept to the last byte of the reply handed to the kernel.",
            labels=["listener"],
        )
        for listener, block in totals:
            for reason, count in zip(REASONS, block.all("refused"), strict=True):
                refused.add_metric([listener, reason], count)
            for protocol, count in zip(PROTOCOLS, block.all("relayed"), strict=True):
                relayed.add_metric([listener, protocol], count)
            buckets = _cumulative(BUCKETS, block.all("buckets"))
            duration.add_metric([listener], buckets, sum_value=block["duration_ns"] / 1e9)
        yield refused
        yield relayed
        yield duration
        length = GaugeMetricFamily(
            "flashpol_accept_queue_length", "Connections waiting to be accepted.", labels=["listener"]
        )
        limit = GaugeMetricFamily(
            "flashpol_accept_queue_limit", "Room for connections waiting to be accepted.", labels=["listener"]
        )
        for i, facts in enumerate(self._facts):
            queues = [self._shared.queue(slot, i) for slot in range(self._shared.slots)]
            length.add_metric([facts.listener], sum(queue.length for queue in queues))
            limit.add_metric([facts.listener], sum(queue.limit for queue in queues))
        yield length
        yield limit

    def _relaying(self) -> Iterator[Metric]:
        labels = ["listener", "upstream"]
        totals = [(route, self._view.totals.relayed(route)) for route in dict.fromkeys(self._view.routes)]
        for family, name, text, value in _RELAY:
            metric = family(f"flashpol_{name}", text, labels=labels)
            for route, block in totals:
                metric.add_metric(route, value(block))
            yield metric
        for name, text, label, kinds, field in _RELAY_KINDS:
            counter = CounterMetricFamily(f"flashpol_{name}", text, labels=[*labels, label])
            for route, block in totals:
                for kind, count in zip(kinds, block.all(field), strict=True):
                    counter.add_metric([*route, kind], count)
            yield counter
        for name, text, field, bounds in _RELAY_TIMES:
            histogram = HistogramMetricFamily(f"flashpol_{name}", text, labels=labels)
            for route, block in totals:
                buckets = _cumulative(bounds, block.all(f"{field}_buckets"))
                histogram.add_metric(route, buckets, sum_value=block[f"{field}_ns"] / 1e9)
            yield histogram

    def _processes(self) -> Iterator[Metric]:
        workers = [(str(slot), self._shared.process(slot)) for slot in range(self._shared.slots)]
        for name, text, value in _PROCESS:
            gauge = GaugeMetricFamily(f"flashpol_{name}", text, labels=["worker"])
            for worker, status in workers:
                gauge.add_metric([worker], value(status))
            yield gauge
        restarts = CounterMetricFamily("flashpol_worker_restarts", "Workers that were replaced.", labels=["worker"])
        for worker, _ in workers:
            restarts.add_metric([worker], self._view.totals.restarts(int(worker)))
        yield restarts
        present = [(worker, status) for worker, status in workers if status.observed]
        for family, name, text, value in _USAGE:
            usage = family(f"flashpol_{name}", text, labels=["worker"])
            for worker, status in present:
                usage.add_metric([worker], value(status))
            yield usage
        files = GaugeMetricFamily("flashpol_worker_open_files", "Descriptors the worker has open.", labels=["worker"])
        for worker, status in present:
            clients, upstreams = self._shared.slot_total(int(worker))["open"], self._shared.upstream_files(int(worker))
            files.add_metric([worker], status.base_files + clients + upstreams)
        yield files
        yield GaugeMetricFamily(
            "flashpol_draining_workers",
            "Workers of earlier configurations that finish what is inside.",
            value=self._view.totals.draining_workers(self._shared),
        )

    def _configuration(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "flashpol_policy_info", "The policy a listener serves; always 1.", labels=["listener", "sha256"]
        )
        size = GaugeMetricFamily("flashpol_policy_bytes", "Size of the reply, its NUL included.", labels=["listener"])
        for facts in self._facts:
            info.add_metric([facts.listener, facts.sha256], 1)
            size.add_metric([facts.listener], len(facts.reply))
        yield info
        yield size
        yield GaugeMetricFamily(
            "flashpol_config_last_reload_successful",
            "1 if the configuration was loaded the last time that was tried.",
            value=self._view.status.reload_successful,
        )
        yield GaugeMetricFamily(
            "flashpol_config_last_reload_success_timestamp_seconds",
            "When a configuration was last loaded.",
            value=self._view.status.reload_timestamp,
        )
        build = GaugeMetricFamily(
            "flashpol_build_info", "Versions; always 1.", labels=["version", "python_version", "gevent_version"]
        )
        build.add_metric([VERSION, platform.python_version(), gevent.__version__], 1)
        yield build


def _cumulative(bounds: Sequence[float], counts: list[int]) -> list[tuple[str, float]]:
    total = 0
    rows: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        rows.append((bound, total))
    return rows


def make_registry(view: AdminContext) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FlashpolCollector(view))
    return registry
