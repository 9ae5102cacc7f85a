"""Counters in shared memory -> the metrics of the server. The only place that names one of them.

A scrape reads shared memory: it sends nothing to a worker and opens no file. `exposition` makes its text. The probe's
metrics are in `probe.report.metrics`.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Generic, NamedTuple

import gevent
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from flashpol._fastpath import BUCKETS, HANDSHAKE_FAILURES, PROTOCOLS, REASONS, TLS_VERSIONS
from flashpol._pump import CONNECT_SECONDS, DURATION_SECONDS, ENDS, FAILURES
from flashpol._tunnel import ENDS as TUNNEL_ENDS
from flashpol._websocket import CLOSE_CODES, RESULTS, SIDES
from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.metric_families import Family, T, by, counter, gauge, histogram, info
from flashpol.admin.policy_analysis import AnalysisCache
from flashpol.admin.problem_kinds import CONFIGURATION_KINDS, KINDS
from flashpol.admin.problems import Linted, find_configuration_problems
from flashpol.admin.status import DIRECTIONS
from flashpol.counters.layout import Block, RelayBlock, TunnelBlock, WebSocketBlock
from flashpol.counters.status import ProcessStatus, QueueStatus
from flashpol.serving.certificates import CertificateFacts
from flashpol.version import VERSION


class Worker(NamedTuple):
    slot: int
    status: ProcessStatus
    context: AdminContext


class Source(NamedTuple):
    """What subjects are found in. workers: one for each slot; present: those whose process exists."""

    context: AdminContext
    workers: Sequence[Worker]
    present: Sequence[Worker]
    linted: Callable[[], Linted]  # the policies with their findings


# A subject: the values of its labels, and what reads its counters or its state.
Subject = tuple[tuple[str, ...], Callable[[], T]]


@dataclass(frozen=True)
class Group(Generic[T]):
    """The metrics that the same subjects have. labels: the names of the subjects' labels."""

    labels: tuple[str, ...]
    subjects: Callable[[Source], Iterable[Subject[T]]]
    families: Sequence[Family[T]]


_LISTENER: Sequence[Family[Block]] = (
    counter(
        "connections_accepted",
        "Connections accepted, and tunnel sessions (RTMPT) opened, each of which has HTTP connections beside it.",
        "accepted",
    ),
    counter("replies", "Policies sent as replies to requests.", lambda b: (b.replies,)),
    counter("reply_bytes", "Bytes of policies sent, in whole replies.", "reply_bytes"),
    counter(
        "served",
        "HTTP connections that ended after a policy file was sent, or after they carried requests of RTMPT.",
        "served",
    ),
    counter("timeouts", "Connections closed because the request or the reply took too long.", "timeouts"),
    counter("resets", "Connections that the client closed or reset before it had a reply.", "resets"),
    counter(
        "accept_errors", "Accepts that failed: out of descriptors or memory, or the client had gone.", "accept_errors"
    ),
    counter(
        "untracked_connections",
        "Connections admitted without limits by address, because the address table was full.",
        "untracked",
    ),
    gauge("connections_open", "Connections open now.", "open"),
    gauge("parked_connections", "Connections that wait for the client, without a greenlet.", "parked"),
    gauge("slow_replies", "Replies that clients read slowly, each with a greenlet.", "slow_replies"),
    gauge("sessions", "Connections relayed to an upstream or waiting for one, each with a greenlet.", "sessions"),
    counter("refused", "Connections refused, by reason.", "refused", by("reason", REASONS)),
    counter(
        "relayed",
        "Connections to a shared port that were relayed and have ended, by protocol.",
        "relayed",
        by("protocol", PROTOCOLS),
    ),
    histogram(
        "request_duration_seconds",
        "Time from accept to the last byte of the reply handed to the kernel.",
        BUCKETS,
        "buckets",
        "duration_ns",
    ),
)
_QUEUE: Sequence[Family[list[QueueStatus]]] = (
    gauge(
        "accept_queue_length",
        "Connections waiting to be accepted.",
        lambda queues: (sum(queue.length for queue in queues),),
    ),
    gauge(
        "accept_queue_limit",
        "Connections that may wait to be accepted.",
        lambda queues: (sum(queue.limit for queue in queues),),
    ),
)
# Of a listener that speaks TLS.
_TLS: Sequence[Family[Block]] = (
    gauge("tls_connections_open", "TLS connections open now, handshakes included.", "tls"),
    gauge(
        "tls_handshakes_open",
        "TLS connections that have a place among max_handshakes: they have not sent their request yet.",
        "handshaking",
    ),
    counter("tls_resumed", "TLS handshakes that took up an earlier session.", "resumed"),
    counter("tls_unknown_names", "TLS handshakes for a name that no certificate has.", "unknown_names"),
    counter("tls_truncated", "TLS connections whose client closed its side without close_notify.", "truncated"),
    counter("tls_handshakes", "TLS handshakes completed, by version.", "handshakes", by("version", TLS_VERSIONS)),
    counter(
        "tls_handshake_failures",
        "TLS handshakes that failed.",
        "handshake_failures",
        by("reason", HANDSHAKE_FAILURES),
    ),
    histogram(
        "tls_handshake_duration_seconds",
        "Time from accept until the TLS handshake is complete.",
        BUCKETS,
        "handshake_buckets",
        "handshake_ns",
    ),
)
_CERTIFICATE: Sequence[Family[CertificateFacts]] = (
    gauge(
        "tls_certificate_not_after_timestamp_seconds",
        "When the certificate expires, or one of its chain if that is earlier, in seconds since the epoch.",
        lambda certificate: (min(end for _, end in certificate.ends),),
    ),
)
_CERTIFICATE_INFO = (
    info(
        "tls_certificate_info",
        "Always 1; the labels are the certificate's host names, kind of key and SHA-256.",
    ),
)
_WEBSOCKET: Sequence[Family[WebSocketBlock]] = (
    gauge("websocket_open", "WebSocket sessions open now.", "open"),
    counter(
        "websocket_ping_timeouts",
        "WebSocket sessions that ended because the client did not reply to a ping.",
        "ping_timeouts",
    ),
    counter(
        "websocket_upgrades",
        "Requests for a WebSocket path, by result: accepted, or why not.",
        "upgrades",
        by("result", RESULTS),
    ),
    counter(
        "websocket_compressed_bytes",
        "Bytes of compressed WebSocket messages, as they are on the wire.",
        "deflated",
        by("direction", DIRECTIONS),
    ),
    counter(
        "websocket_uncompressed_bytes",
        "Bytes of the same WebSocket messages without compression.",
        "inflated",
        by("direction", DIRECTIONS),
    ),
    counter(
        "websocket_closes",
        "WebSocket sessions that ended, by the code of Close and the side that sent it first.",
        "closes",
        [{"code": code, "by": side} for side, code in product(SIDES, CLOSE_CODES)],
    ),
)
# Of a listener with tunnel sessions.
_RTMPT: Sequence[Family[TunnelBlock]] = (
    gauge("rtmpt_sessions_open", "Tunnel sessions (RTMPT) open now.", "open"),
    counter("rtmpt_sessions", "Tunnel sessions that the upstream accepted.", "sessions"),
    counter(
        "rtmpt_polls",
        "Polls (requests of /idle) that were carried out, by the worker that has the session.",
        "polls",
    ),
    gauge(
        "rtmpt_polls_held",
        "Polls that wait for bytes from the upstream now, for rtmpt_hold at most.",
        "held",
    ),
    counter(
        "rtmpt_unknown_sessions",
        "Requests for a tunnel session that there is not, or that has ended: the client got 404.",
        "unknown",
    ),
    counter(
        "rtmpt_reordered",
        "Requests that came before one with a lower number, and waited for it.",
        "reordered",
    ),
    counter(
        "rtmpt_gaps",
        "Times that a session went on without a request, which had not come within rtmpt_gap.",
        "gaps",
    ),
    counter("rtmpt_repeated", "Requests that came once more.", "repeated"),
    counter(
        "rtmpt_refused_requests",
        "Requests of open sessions that got 503, because the session held as many requests or bytes as it may.",
        "refused",
    ),
    counter("rtmpt_forwarded", "Requests that were forwarded to the worker that has the session.", "forwarded"),
    counter(
        "rtmpt_forward_failures",
        "Of the forwarded requests, those that the other worker did not reply to: the client got 404 or 503.",
        "forward_failures",
    ),
    gauge(
        "rtmpt_buffered_bytes",
        "Bytes in memory for tunnel sessions: requests that wait, and replies that may be asked for once more.",
        "buffered",
    ),
    counter(
        "rtmpt_ends",
        "Tunnel sessions that ended, by the side that closed first or reset, or by what ended them.",
        "ends",
        by("by", TUNNEL_ENDS),
    ),
)
# Of an upstream.
_RELAY: Sequence[Family[RelayBlock]] = (
    counter("relay_sessions_started", "Sessions that the upstream accepted.", "opened"),
    gauge("relay_sessions_open", "Sessions open now.", "open"),
    gauge("relay_connecting", "Connections to the upstream that it has not accepted yet.", "connecting"),
    gauge("relay_local_ports", "Local ports in use towards the upstream, those in TIME-WAIT included.", "ports"),
    gauge(
        "relay_max_local_ports",
        "Local ports that there are towards the upstream's addresses; 0 before the first session.",
        "max_ports",
    ),
    counter(
        "relay_ends",
        "Sessions that ended, by the side that closed first or reset, or by what ended them.",
        "ends",
        by("by", ENDS),
    ),
    counter(
        "relay_connect_failures",
        "Attempts to connect to the upstream that failed, by reason.",
        "failures",
        by("reason", FAILURES),
    ),
    counter("relay_bytes", "Bytes relayed, by the side that sent them.", "sent", by("sender", ("client", "upstream"))),
    histogram(
        "relay_connect_duration_seconds",
        "Time from the attempt to connect until the upstream accepts.",
        CONNECT_SECONDS,
        "connect_buckets",
        "connect_ns",
    ),
    histogram(
        "relay_session_duration_seconds",
        "Time from the upstream's acceptance to the end of the session.",
        DURATION_SECONDS,
        "duration_buckets",
        "duration_ns",
    ),
)
_WORKER: Sequence[Family[Worker]] = (
    gauge("worker_up", "1 if the worker serves, 0 while it is down or stalled.", lambda w: (w.status.serving,)),
    gauge(
        "loop_lag_seconds",
        "How late the event loop is: its last timer was, or its next heartbeat is.",
        lambda w: (w.status.lag,),
    ),
    counter(
        "worker_restarts",
        "Workers that ended by themselves and were replaced.",
        lambda w: (w.context.totals.restarts(w.slot),),
    ),
)
# Of a worker whose process exists.
_USAGE: Sequence[Family[Worker]] = (
    counter(
        "worker_cpu_seconds",
        "CPU time that the worker's process has used.",
        lambda w: (w.status.cpu_ns / 1e9,),
    ),
    gauge(
        "worker_resident_memory_bytes",
        "Resident memory of the worker's process.",
        lambda w: (w.status.resident_bytes,),
    ),
    gauge(
        "worker_start_time_seconds",
        "When the worker's process started, in seconds since the epoch.",
        lambda w: (w.status.started_ms / 1e3,),
    ),
    gauge("worker_max_files", "File descriptors that the worker may have open.", lambda w: (w.status.max_files,)),
    gauge(
        "worker_open_files",
        "File descriptors that the worker has open.",
        lambda w: (w.context.open_files(w.slot),),
    ),
)
_DRAINING: Sequence[Family[AdminContext]] = (
    gauge(
        "draining_workers",
        "Workers of earlier configurations that still finish their connections.",
        lambda context: (context.totals.draining_workers(context.shared),),
    ),
)
_POLICY_INFO = (
    info(
        "policy_info",
        "Always 1; sha256 is that of the policy that the listener serves, without its NUL.",
    ),
)
_POLICY: Sequence[Family[ListenerInfo]] = (
    gauge("policy_bytes", "Size of the reply, NUL included.", lambda listener: (len(listener.reply),)),
)
_CONFIGURATION: Sequence[Family[AdminContext]] = (
    gauge(
        "config_last_reload_successful",
        "1 if the last attempt to load the configuration succeeded.",
        lambda context: (context.status.reload_successful,),
    ),
    gauge(
        "config_last_reload_success_timestamp_seconds",
        "When a configuration was last loaded, in seconds since the epoch.",
        lambda context: (context.status.reload_timestamp,),
    ),
)
_PROBLEM_KINDS = [(kind, severity) for kind in CONFIGURATION_KINDS for severity in KINDS[kind]]
_PROBLEMS: Sequence[Family[Counter[tuple[str, str]]]] = (
    gauge(
        "configuration_problems",
        "Problems of the configuration and its policies that the status page shows, by kind.",
        lambda counts: [counts[each] for each in _PROBLEM_KINDS],
        [{"kind": kind, "severity": severity} for kind, severity in _PROBLEM_KINDS],
    ),
)
_BUILD = (info("build_info", "Always 1; the labels are versions."),)


def _fixed(value: T) -> Callable[[], T]:
    return lambda: value


def _listeners(source: Source) -> Iterator[Subject[Block]]:
    return (
        ((each.listener,), partial(source.context.totals.total, each.listener)) for each in source.context.listeners
    )


def _queues(source: Source) -> Iterator[Subject[list[QueueStatus]]]:
    shared = source.context.shared
    for i, each in enumerate(source.context.listeners):
        yield (each.listener,), _fixed([shared.queue(slot, i) for slot in range(shared.slots)])


def _tls_listeners(source: Source) -> Iterator[Subject[Block]]:
    speaking = {each.listener for each in source.context.tls_listeners}
    return ((labels, read) for labels, read in _listeners(source) if labels[0] in speaking)


def _certificates(source: Source) -> Iterator[Subject[CertificateFacts]]:
    return (((each.name,), _fixed(each)) for each in source.context.certificates)


def _certificate_infos(source: Source) -> Iterator[Subject[None]]:
    for each in source.context.certificates:
        yield (each.name, ",".join(each.names), each.key, each.sha256), _fixed(None)


def _paths(source: Source) -> Iterator[Subject[WebSocketBlock]]:
    return ((path, partial(source.context.totals.websocket, path)) for path in source.context.paths)


def _tunnels(source: Source) -> Iterator[Subject[TunnelBlock]]:
    return (((name,), partial(source.context.totals.tunnels, name)) for name in source.context.tunnels)


def _routes(source: Source) -> Iterator[Subject[RelayBlock]]:
    routes = dict.fromkeys(source.context.routes)
    return ((route, partial(source.context.totals.relayed, route)) for route in routes)


def _workers(source: Source) -> Iterator[Subject[Worker]]:
    return (((str(worker.slot),), _fixed(worker)) for worker in source.workers)


def _processes(source: Source) -> Iterator[Subject[Worker]]:
    return (((str(worker.slot),), _fixed(worker)) for worker in source.present)


def _server(source: Source) -> list[Subject[AdminContext]]:
    return [((), _fixed(source.context))]


def _policy_infos(source: Source) -> Iterator[Subject[None]]:
    return (((each.listener, each.sha256), _fixed(None)) for each in source.context.listeners)


def _policies(source: Source) -> Iterator[Subject[ListenerInfo]]:
    return (((each.listener,), _fixed(each)) for each in source.context.listeners)


def _problems(source: Source) -> list[Subject[Counter[tuple[str, str]]]]:
    def read() -> Counter[tuple[str, str]]:
        found = find_configuration_problems(source.context, source.linted())
        return Counter((problem.kind, problem.severity) for problem in found)

    return [((), read)]


def _build(_: Source) -> list[Subject[None]]:
    return [((VERSION, platform.python_version(), gevent.__version__), _fixed(None))]


GROUPS: Sequence[Group[Any]] = (
    Group(("listener",), _listeners, _LISTENER),
    Group(("listener",), _queues, _QUEUE),
    Group(("listener",), _tls_listeners, _TLS),
    Group(("certificate",), _certificates, _CERTIFICATE),
    Group(("certificate", "names", "key", "sha256"), _certificate_infos, _CERTIFICATE_INFO),
    Group(("listener", "path"), _paths, _WEBSOCKET),
    Group(("listener",), _tunnels, _RTMPT),
    Group(("listener", "upstream"), _routes, _RELAY),
    Group(("worker",), _workers, _WORKER),
    Group(("worker",), _processes, _USAGE),
    Group((), _server, _DRAINING),
    Group(("listener", "sha256"), _policy_infos, _POLICY_INFO),
    Group(("listener",), _policies, _POLICY),
    Group((), _server, _CONFIGURATION),
    Group((), _problems, _PROBLEMS),
    Group(("version", "python_version", "gevent_version"), _build, _BUILD),
)


_VALUES = [[family.values for family in group.families] for group in GROUPS]


class Samples(Collector):
    """The samples of all metrics, for as long as no worker comes or goes."""

    def __init__(self, source: Source) -> None:
        self._subjects = [list(group.subjects(source)) for group in GROUPS]

    def collect(self) -> Iterator[Metric]:
        """As prometheus-client has them, with the values of this moment."""
        for group, subjects in zip(GROUPS, self._subjects, strict=True):
            found = [(dict(zip(group.labels, labels, strict=True)), read()) for labels, read in subjects]
            for family in group.families:
                metric = Metric(f"flashpol_{family.name}", family.text, family.type)
                for labels, subject in found:
                    for (suffix, own), value in zip(family.samples, family.values(subject), strict=True):
                        metric.add_sample(metric.name + suffix, labels | own, value)
                yield metric

    def values(self) -> list[float]:
        """The values alone, in the same order."""
        values: list[float] = []
        for functions, subjects in zip(_VALUES, self._subjects, strict=True):
            if subjects:
                found = [read() for _, read in subjects]
                for function in functions:
                    for subject in found:
                        values += function(subject)
        return values


class FlashpolCollector(Collector):
    """The metrics of a server. analyses: what is known of its policies."""

    def __init__(self, context: AdminContext, analyses: AnalysisCache | None = None) -> None:
        self._context = context
        self._linted: Callable[[], Linted] = (lambda: analyses.linted) if analyses else tuple
        self._workers = [Worker(slot, context.shared.process(slot), context) for slot in range(context.shared.slots)]
        self._samples: tuple[list[Worker], Samples] | None = None

    @property
    def samples(self) -> Samples:
        """The same object until a worker comes or goes. Nothing else does while an admin process runs."""
        present = [worker for worker in self._workers if worker.status.observed]
        if self._samples is None or present != self._samples[0]:
            self._samples = present, Samples(Source(self._context, self._workers, present, self._linted))
        return self._samples[1]

    def describe(self) -> Iterator[Metric]:
        """The families without samples: registering need not collect."""
        for family in self.collect():
            family.samples.clear()
            yield family

    def collect(self) -> Iterator[Metric]:
        return self.samples.collect()
