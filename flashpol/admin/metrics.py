"""Counters in shared memory -> Prometheus metric families. The only place that names a metric of the server.

A scrape reads shared memory: it sends nothing to a worker and opens no file. The probe's metrics are in
`probe.report.metrics`.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import gevent
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from flashpol._fastpath import BUCKETS, HANDSHAKE_FAILURES, PROTOCOLS, REASONS, TLS_VERSIONS
from flashpol._pump import CONNECT_SECONDS, DURATION_SECONDS, ENDS, FAILURES
from flashpol._tunnel import ENDS as TUNNEL_ENDS
from flashpol._websocket import CLOSE_CODES, RESULTS, SIDES
from flashpol.admin.context import AdminContext
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.admin.problem_kinds import CONFIGURATION_KINDS, KINDS
from flashpol.admin.problems import find_configuration_problems
from flashpol.admin.status import DIRECTIONS
from flashpol.counters.layout import Block, RelayBlock, TunnelBlock, WebSocketBlock
from flashpol.counters.status import ProcessStatus
from flashpol.version import VERSION

# Name, help, and how to get the value out of a listener's totals.
_COUNTERS: tuple[tuple[str, str, Callable[[Block], float]], ...] = (
    (
        "connections_accepted",
        "Connections accepted, and tunnel sessions (RTMPT) opened, each of which has HTTP connections beside it.",
        lambda b: b["accepted"],
    ),
    ("replies", "Policies sent as replies to requests.", lambda b: b.replies),
    ("reply_bytes", "Bytes of policies sent, in whole replies.", lambda b: b["reply_bytes"]),
    (
        "served",
        "HTTP connections that ended after a policy file was sent, or after they carried requests of RTMPT.",
        lambda b: b["served"],
    ),
    ("timeouts", "Connections closed because the request or the reply took too long.", lambda b: b["timeouts"]),
    ("resets", "Connections that the client closed or reset before it had a reply.", lambda b: b["resets"]),
    (
        "accept_errors",
        "Accepts that failed: out of descriptors or memory, or the client had gone.",
        lambda b: b["accept_errors"],
    ),
    (
        "untracked_connections",
        "Connections admitted without limits by address, because the address table was full.",
        lambda b: b["untracked"],
    ),
)
_GAUGES: tuple[tuple[str, str, Callable[[Block], float]], ...] = (
    ("connections_open", "Connections open now.", lambda b: b["open"]),
    ("parked_connections", "Connections that wait for the client, without a greenlet.", lambda b: b["parked"]),
    ("slow_replies", "Replies that clients read slowly, each with a greenlet.", lambda b: b["slow_replies"]),
    (
        "sessions",
        "Connections relayed to an upstream or waiting for one, each with a greenlet.",
        lambda b: b["sessions"],
    ),
)
# Of a listener that speaks TLS.
_TLS: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[Block], float]], ...] = (
    (GaugeMetricFamily, "tls_connections_open", "TLS connections open now, handshakes included.", lambda b: b["tls"]),
    (
        GaugeMetricFamily,
        "tls_handshakes_open",
        "TLS connections that have a place among max_handshakes: they have not sent their request yet.",
        lambda b: b["handshaking"],
    ),
    (
        CounterMetricFamily,
        "tls_resumed",
        "TLS handshakes that took up an earlier session.",
        lambda b: b["resumed"],
    ),
    (
        CounterMetricFamily,
        "tls_unknown_names",
        "TLS handshakes for a name that no certificate has.",
        lambda b: b["unknown_names"],
    ),
    (
        CounterMetricFamily,
        "tls_truncated",
        "TLS connections whose client closed its side without close_notify.",
        lambda b: b["truncated"],
    ),
)
_TLS_KINDS = (
    ("tls_handshakes", "TLS handshakes completed, by version.", "version", TLS_VERSIONS, "handshakes"),
    ("tls_handshake_failures", "TLS handshakes that failed.", "reason", HANDSHAKE_FAILURES, "handshake_failures"),
)
# Of a WebSocket path.
_WEBSOCKET: tuple[
    tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[WebSocketBlock], float]], ...
] = (
    (GaugeMetricFamily, "websocket_open", "WebSocket sessions open now.", lambda b: b["open"]),
    (
        CounterMetricFamily,
        "websocket_ping_timeouts",
        "WebSocket sessions that ended because the client did not reply to a ping.",
        lambda b: b["ping_timeouts"],
    ),
)
# The same with a label: its values, and the words of a block that count them.
_WEBSOCKET_KINDS = (
    (
        "websocket_upgrades",
        "Requests for a WebSocket path, by result: accepted, or why not.",
        "result",
        RESULTS,
        "upgrades",
    ),
    (
        "websocket_compressed_bytes",
        "Bytes of compressed WebSocket messages, as they are on the wire.",
        "direction",
        DIRECTIONS,
        "deflated",
    ),
    (
        "websocket_uncompressed_bytes",
        "Bytes of the same WebSocket messages without compression.",
        "direction",
        DIRECTIONS,
        "inflated",
    ),
)
# Of a listener with tunnel sessions.
_RTMPT: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[TunnelBlock], float]], ...] = (
    (GaugeMetricFamily, "rtmpt_sessions_open", "Tunnel sessions (RTMPT) open now.", lambda b: b["open"]),
    (CounterMetricFamily, "rtmpt_sessions", "Tunnel sessions that the upstream accepted.", lambda b: b["sessions"]),
    (
        CounterMetricFamily,
        "rtmpt_polls",
        "Polls (requests of /idle) that were carried out, by the worker that has the session.",
        lambda b: b["polls"],
    ),
    (
        GaugeMetricFamily,
        "rtmpt_polls_held",
        "Polls that wait for bytes from the upstream now, for rtmpt_hold at most.",
        lambda b: b["held"],
    ),
    (
        CounterMetricFamily,
        "rtmpt_unknown_sessions",
        "Requests for a tunnel session that there is not, or that has ended: the client got 404.",
        lambda b: b["unknown"],
    ),
    (
        CounterMetricFamily,
        "rtmpt_reordered",
        "Requests that came before one with a lower number, and waited for it.",
        lambda b: b["reordered"],
    ),
    (
        CounterMetricFamily,
        "rtmpt_gaps",
        "Times that a session went on without a request, which had not come within rtmpt_gap.",
        lambda b: b["gaps"],
    ),
    (CounterMetricFamily, "rtmpt_repeated", "Requests that came once more.", lambda b: b["repeated"]),
    (
        CounterMetricFamily,
        "rtmpt_refused_requests",
        "Requests of open sessions that got 503, because the session held as many requests or bytes as it may.",
        lambda b: b["refused"],
    ),
    (
        CounterMetricFamily,
        "rtmpt_forwarded",
        "Requests that were forwarded to the worker that has the session.",
        lambda b: b["forwarded"],
    ),
    (
        CounterMetricFamily,
        "rtmpt_forward_failures",
        "Of the forwarded requests, those that the other worker did not reply to: the client got 404 or 503.",
        lambda b: b["forward_failures"],
    ),
    (
        GaugeMetricFamily,
        "rtmpt_buffered_bytes",
        "Bytes in memory for tunnel sessions: requests that wait, and replies that may be asked for once more.",
        lambda b: b["buffered"],
    ),
)
# Of an upstream.
_RELAY: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[RelayBlock], float]], ...] = (
    (CounterMetricFamily, "relay_sessions_started", "Sessions that the upstream accepted.", lambda b: b["opened"]),
    (GaugeMetricFamily, "relay_sessions_open", "Sessions open now.", lambda b: b["open"]),
    (
        GaugeMetricFamily,
        "relay_connecting",
        "Connections to the upstream that it has not accepted yet.",
        lambda b: b["connecting"],
    ),
    (
        GaugeMetricFamily,
        "relay_local_ports",
        "Local ports in use towards the upstream, those in TIME-WAIT included.",
        lambda b: b["ports"],
    ),
    (
        GaugeMetricFamily,
        "relay_max_local_ports",
        "Local ports that there are towards the upstream's addresses; 0 before the first session.",
        lambda b: b["max_ports"],
    ),
)
# Label, its values, and the words of a block that count them.
_RELAY_KINDS = (
    (
        "relay_ends",
        "Sessions that ended, by the side that closed first or reset, or by what ended them.",
        "by",
        ENDS,
        "ends",
    ),
    (
        "relay_connect_failures",
        "Attempts to connect to the upstream that failed, by reason.",
        "reason",
        FAILURES,
        "failures",
    ),
    ("relay_bytes", "Bytes relayed, by the side that sent them.", "sender", ("client", "upstream"), "sent"),
)
_RELAY_TIMES = (
    (
        "relay_connect_duration_seconds",
        "Time from the attempt to connect until the upstream accepts.",
        "connect",
        CONNECT_SECONDS,
    ),
    (
        "relay_session_duration_seconds",
        "Time from the upstream's acceptance to the end of the session.",
        "duration",
        DURATION_SECONDS,
    ),
)
_PROCESS: tuple[tuple[str, str, Callable[[ProcessStatus], float]], ...] = (
    ("worker_up", "1 if the worker serves, 0 while it is down or stalled.", lambda s: s.serving),
    ("loop_lag_seconds", "How late the event loop is: its last timer was, or its next heartbeat is.", lambda s: s.lag),
)
# Of a worker whose process exists.
_USAGE: tuple[tuple[type[CounterMetricFamily | GaugeMetricFamily], str, str, Callable[[ProcessStatus], float]], ...] = (
    (
        CounterMetricFamily,
        "worker_cpu_seconds",
        "CPU time that the worker's process has used.",
        lambda s: s.cpu_ns / 1e9,
    ),
    (
        GaugeMetricFamily,
        "worker_resident_memory_bytes",
        "Resident memory of the worker's process.",
        lambda s: s.resident_bytes,
    ),
    (
        GaugeMetricFamily,
        "worker_start_time_seconds",
        "When the worker's process started, in seconds since the epoch.",
        lambda s: s.started_ms / 1e3,
    ),
    (GaugeMetricFamily, "worker_max_files", "File descriptors that the worker may have open.", lambda s: s.max_files),
)


class FlashpolCollector(Collector):
    """Builds all families from shared memory at each scrape. analyses: what is known of the policies."""

    def __init__(self, context: AdminContext, analyses: AnalysisCache | None = None) -> None:
        self._context = context
        self._analyses = analyses
        self._shared = context.shared
        self._listeners = context.listeners

    def describe(self) -> Iterator[Metric]:
        """The families without samples: registering need not collect."""
        for family in self.collect():
            family.samples.clear()
            yield family

    def collect(self) -> Iterator[Metric]:
        yield from self._traffic()
        yield from self._tls()
        yield from self._websocket()
        yield from self._rtmpt()
        yield from self._relaying()
        yield from self._processes()
        yield from self._configuration()

    def _traffic(self) -> Iterator[Metric]:
        totals = [(each.listener, self._context.totals.total(each.listener)) for each in self._listeners]
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
            "Connections to a shared port that were relayed and have ended, by protocol.",
            labels=["listener", "protocol"],
        )
        duration = HistogramMetricFamily(
            "flashpol_request_duration_seconds",
            "Time from accept to the last byte of the reply handed to the kernel.",
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
            "flashpol_accept_queue_limit", "Connections that may wait to be accepted.", labels=["listener"]
        )
        for i, each in enumerate(self._listeners):
            queues = [self._shared.queue(slot, i) for slot in range(self._shared.slots)]
            length.add_metric([each.listener], sum(queue.length for queue in queues))
            limit.add_metric([each.listener], sum(queue.limit for queue in queues))
        yield length
        yield limit

    def _tls(self) -> Iterator[Metric]:
        totals = [(each.listener, self._context.totals.total(each.listener)) for each in self._context.tls_listeners]
        for family, name, text, value in _TLS:
            metric = family(f"flashpol_{name}", text, labels=["listener"])
            for listener, block in totals:
                metric.add_metric([listener], value(block))
            yield metric
        for name, text, label, kinds, field in _TLS_KINDS:
            counter = CounterMetricFamily(f"flashpol_{name}", text, labels=["listener", label])
            for listener, block in totals:
                for kind, count in zip(kinds, block.all(field), strict=True):
                    counter.add_metric([listener, kind], count)
            yield counter
        duration = HistogramMetricFamily(
            "flashpol_tls_handshake_duration_seconds",
            "Time from accept until the TLS handshake is complete.",
            labels=["listener"],
        )
        for listener, block in totals:
            buckets = _cumulative(BUCKETS, block.all("handshake_buckets"))
            duration.add_metric([listener], buckets, sum_value=block["handshake_ns"] / 1e9)
        yield duration
        not_after = GaugeMetricFamily(
            "flashpol_tls_certificate_not_after_timestamp_seconds",
            "When the certificate expires, or one of its chain if that is earlier, in seconds since the epoch.",
            labels=["certificate"],
        )
        info = GaugeMetricFamily(
            "flashpol_tls_certificate_info",
            "Always 1; the labels are the certificate's host names, kind of key and SHA-256.",
            labels=["certificate", "names", "key", "sha256"],
        )
        for certificate in self._context.certificates:
            not_after.add_metric([certificate.name], min(end for _, end in certificate.ends))
            info.add_metric([certificate.name, ",".join(certificate.names), certificate.key, certificate.sha256], 1)
        yield not_after
        yield info

    def _websocket(self) -> Iterator[Metric]:
        labels = ["listener", "path"]
        totals = [(path, self._context.totals.websocket(path)) for path in self._context.paths]
        for family, name, text, value in _WEBSOCKET:
            metric = family(f"flashpol_{name}", text, labels=labels)
            for path, block in totals:
                metric.add_metric(path, value(block))
            yield metric
        for name, text, label, kinds, field in _WEBSOCKET_KINDS:
            counter = CounterMetricFamily(f"flashpol_{name}", text, labels=[*labels, label])
            for path, block in totals:
                for kind, count in zip(kinds, block.all(field), strict=True):
                    counter.add_metric([*path, kind], count)
            yield counter
        closes = CounterMetricFamily(
            "flashpol_websocket_closes",
            "WebSocket sessions that ended, by the code of Close and the side that sent it first.",
            labels=[*labels, "code", "by"],
        )
        for path, block in totals:
            for (side, code), count in zip(product(SIDES, CLOSE_CODES), block.all("closes"), strict=True):
                closes.add_metric([*path, code, side], count)
        yield closes

    def _rtmpt(self) -> Iterator[Metric]:
        totals = [(name, self._context.totals.tunnels(name)) for name in self._context.tunnels]
        for family, name, text, value in _RTMPT:
            metric = family(f"flashpol_{name}", text, labels=["listener"])
            for listener, block in totals:
                metric.add_metric([listener], value(block))
            yield metric
        ends = CounterMetricFamily(
            "flashpol_rtmpt_ends",
            "Tunnel sessions that ended, by the side that closed first or reset, or by what ended them.",
            labels=["listener", "by"],
        )
        for listener, block in totals:
            for end, count in zip(TUNNEL_ENDS, block.all("ends"), strict=True):
                ends.add_metric([listener, end], count)
        yield ends

    def _relaying(self) -> Iterator[Metric]:
        labels = ["listener", "upstream"]
        totals = [(route, self._context.totals.relayed(route)) for route in dict.fromkeys(self._context.routes)]
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
        restarts = CounterMetricFamily(
            "flashpol_worker_restarts", "Workers that ended by themselves and were replaced.", labels=["worker"]
        )
        for worker, _ in workers:
            restarts.add_metric([worker], self._context.totals.restarts(int(worker)))
        yield restarts
        present = [(worker, status) for worker, status in workers if status.observed]
        for family, name, text, value in _USAGE:
            usage = family(f"flashpol_{name}", text, labels=["worker"])
            for worker, status in present:
                usage.add_metric([worker], value(status))
            yield usage
        files = GaugeMetricFamily(
            "flashpol_worker_open_files", "File descriptors that the worker has open.", labels=["worker"]
        )
        for worker, _ in present:
            files.add_metric([worker], self._context.open_files(int(worker)))
        yield files
        yield GaugeMetricFamily(
            "flashpol_draining_workers",
            "Workers of earlier configurations that still finish their connections.",
            value=self._context.totals.draining_workers(self._shared),
        )

    def _configuration(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "flashpol_policy_info",
            "Always 1; sha256 is that of the policy that the listener serves, without its NUL.",
            labels=["listener", "sha256"],
        )
        size = GaugeMetricFamily("flashpol_policy_bytes", "Size of the reply, NUL included.", labels=["listener"])
        for each in self._listeners:
            info.add_metric([each.listener, each.sha256], 1)
            size.add_metric([each.listener], len(each.reply))
        yield info
        yield size
        yield GaugeMetricFamily(
            "flashpol_config_last_reload_successful",
            "1 if the last attempt to load the configuration succeeded.",
            value=self._context.status.reload_successful,
        )
        yield GaugeMetricFamily(
            "flashpol_config_last_reload_success_timestamp_seconds",
            "When a configuration was last loaded, in seconds since the epoch.",
            value=self._context.status.reload_timestamp,
        )
        problems = GaugeMetricFamily(
            "flashpol_configuration_problems",
            "Problems of the configuration and its policies that the status page shows, by kind.",
            labels=["kind", "severity"],
        )
        found = find_configuration_problems(self._context, self._analyses.linted if self._analyses else ())
        counts = Counter((problem.kind, problem.severity) for problem in found)
        for kind in CONFIGURATION_KINDS:
            for severity in KINDS[kind]:
                problems.add_metric([kind, severity], counts[kind, severity])
        yield problems
        build = GaugeMetricFamily(
            "flashpol_build_info",
            "Always 1; the labels are versions.",
            labels=["version", "python_version", "gevent_version"],
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


def make_registry(context: AdminContext, analyses: AnalysisCache | None = None) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FlashpolCollector(context, analyses))
    return registry
