"""Counters in shared memory -> the metrics of the server. The only place that names one of them.

A scrape reads shared memory: it sends nothing to a worker and opens no file. `exposition` makes its text. The probe's
metrics are in `probe.report.metrics`.
"""

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from flashpol.counters.status import ProcessStatus
from flashpol.serving.certificates import CertificateFacts
from flashpol.version import VERSION


class Worker(NamedTuple):
    slot: int
    status: ProcessStatus
    context: AdminContext


class Source:
    """What the subjects of one scrape are taken from, each counter and state of a listener or worker once.

    linted: the policies with their findings.
    """

    def __init__(self, context: AdminContext, linted: Linted) -> None:
        self.context, self.linted, self.totals = context, linted, context.totals
        self.blocks = {each.listener: self.totals.total(each.listener) for each in context.listeners}
        slots = range(context.shared.slots)
        self.workers = [Worker(slot, context.shared.process(slot), context) for slot in slots]


# A subject: the values of its labels, and what the values of its samples are taken from.
Subject = tuple[tuple[str, ...], T]


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
_QUEUE: Sequence[Family[tuple[int, int]]] = (
    gauge("accept_queue_length", "Connections waiting to be accepted.", lambda queue: queue[:1]),
    gauge("accept_queue_limit", "Connections that may wait to be accepted.", lambda queue: queue[1:]),
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


def _listeners(source: Source) -> Iterator[Subject[Block]]:
    return (((name,), block) for name, block in source.blocks.items())


def _queues(source: Source) -> Iterator[Subject[tuple[int, int]]]:
    shared = source.context.shared
    for i, each in enumerate(source.context.listeners):
        queues = [shared.queue(slot, i) for slot in range(shared.slots)]
        yield (each.listener,), (sum(queue.length for queue in queues), sum(queue.limit for queue in queues))


def _tls_listeners(source: Source) -> Iterator[Subject[Block]]:
    return (((each.listener,), source.blocks[each.listener]) for each in source.context.tls_listeners)


def _certificates(source: Source) -> Iterator[Subject[CertificateFacts]]:
    return (((each.name,), each) for each in source.context.certificates)


def _certificate_infos(source: Source) -> Iterator[Subject[None]]:
    for each in source.context.certificates:
        yield (each.name, ",".join(each.names), each.key, each.sha256), None


def _paths(source: Source) -> Iterator[Subject[WebSocketBlock]]:
    return ((path, source.totals.websocket(path)) for path in source.context.paths)


def _tunnels(source: Source) -> Iterator[Subject[TunnelBlock]]:
    return (((name,), source.totals.tunnels(name)) for name in source.context.tunnels)


def _routes(source: Source) -> Iterator[Subject[RelayBlock]]:
    return ((route, source.totals.relayed(route)) for route in dict.fromkeys(source.context.routes))


def _workers(source: Source) -> Iterator[Subject[Worker]]:
    return (((str(worker.slot),), worker) for worker in source.workers)


def _processes(source: Source) -> Iterator[Subject[Worker]]:
    return (((str(worker.slot),), worker) for worker in source.workers if worker.status.observed)


def _server(source: Source) -> list[Subject[AdminContext]]:
    return [((), source.context)]


def _policy_infos(source: Source) -> Iterator[Subject[None]]:
    return (((each.listener, each.sha256), None) for each in source.context.listeners)


def _policies(source: Source) -> Iterator[Subject[ListenerInfo]]:
    return (((each.listener,), each) for each in source.context.listeners)


def _problems(source: Source) -> list[Subject[Counter[tuple[str, str]]]]:
    found = find_configuration_problems(source.context, source.linted)
    return [((), Counter((problem.kind, problem.severity) for problem in found))]


def _build(_: Source) -> list[Subject[None]]:
    return [((VERSION, platform.python_version(), gevent.__version__), None)]


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


class Scrape(Collector):
    """The subjects of all groups at one moment."""

    def __init__(self, source: Source) -> None:
        self._subjects = [list(group.subjects(source)) for group in GROUPS]

    @property
    def labels(self) -> list[list[tuple[str, ...]]]:
        """Of all subjects. Two scrapes with the same labels have the same samples in the same order."""
        return [[labels for labels, _ in subjects] for subjects in self._subjects]

    def values(self) -> list[float]:
        """Of all samples, in the order of `collect`."""
        groups = zip(GROUPS, self._subjects, strict=True)
        return [
            value
            for group, subjects in groups
            if subjects
            for family in group.families
            for _, subject in subjects
            for value in family.values(subject)
        ]

    def collect(self) -> Iterator[Metric]:
        """The same as prometheus-client has it."""
        for group, subjects in zip(GROUPS, self._subjects, strict=True):
            for family in group.families:
                metric = Metric(f"flashpol_{family.name}", family.text, family.type)
                for labels, subject in subjects:
                    common = dict(zip(group.labels, labels, strict=True))
                    for (suffix, own), value in zip(family.samples, family.values(subject), strict=True):
                        metric.add_sample(metric.name + suffix, common | own, value)
                yield metric


class FlashpolCollector(Collector):
    """Reads shared memory at each scrape. analyses: what is known of the policies."""

    def __init__(self, context: AdminContext, analyses: AnalysisCache | None = None) -> None:
        self._context = context
        self._analyses = analyses

    def describe(self) -> Iterator[Metric]:
        """The families without samples: registering need not collect."""
        for family in self.collect():
            family.samples.clear()
            yield family

    def collect(self) -> Iterator[Metric]:
        return self.scrape().collect()

    def scrape(self) -> Scrape:
        return Scrape(Source(self._context, self._analyses.linted if self._analyses else ()))
