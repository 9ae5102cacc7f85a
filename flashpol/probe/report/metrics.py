"""Prometheus metrics, in the text format that node_exporter's textfile collector reads."""

import math
from collections.abc import Iterator, Sequence
from time import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flashpol.probe.model import Observation, Target
from flashpol.probe.report import Result, counts
from flashpol.probe.report.rtmp import ways
from flashpol.probe.report.websocket import allowed
from flashpol.probe.tls.judgement import own_certificate
from flashpol.probe.websocket.judgement import asked_for
from flashpol.probe.websocket.upgrade import upgrade_of

_HOST = ("host",)
_TARGET = ("host", "address", "port")
_CLIENT = ("host", "address", "client")
_ORIGIN = (*_TARGET, "origin")
_WAY = ("host", "address", "way", "port")
_TLS = ("version", "suite")
# Name (after flashpol_probe_) -> help and labels. All are gauges: each probe starts from zero.
METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "success": ("1 if no error was found on this host, 0 otherwise.", _HOST),
    "findings": ("Findings by severity.", (*_HOST, "severity")),
    "finding_info": ("1 for each code that was found on this host.", (*_HOST, "code", "severity")),
    "duration_seconds": ("Duration of the probe of this host.", _HOST),
    "reply_seconds": ("Time from SYN to the last byte of the policy, asked as clients ask.", _TARGET),
    "policy_bytes": ("Size of the policy without its NUL.", _TARGET),
    "policy_info": ("1; the label is the SHA-256 of the policy without its NUL.", (*_TARGET, "sha256")),
    "requests": ("Requests sent as clients send them, whole and in one segment.", _TARGET),
    "requests_lost": ("Requests that got no whole policy.", _TARGET),
    "client_connects": ("1 if this client connects or finds a policy, 0 otherwise.", _CLIENT),
    "client_wait_seconds": ("Time until the client's user knows the outcome; +Inf if the client never ends.", _CLIENT),
    "tls_handshake_seconds": ("Time from SYN to the end of the TLS handshake.", _TARGET),
    "tls_info": ("1; the labels are the version and the cipher suite that the server chose.", (*_TARGET, *_TLS)),
    "tls_certificate_not_after_timestamp_seconds": ("Time at which the server's certificate expires.", _TARGET),
    "tls_certificate_info": ("1; the label is the SHA-256 of the server's certificate.", (*_TARGET, "sha256")),
    "websocket_allowed": ("1 if pages of this origin get a WebSocket, 0 otherwise.", _ORIGIN),
    "websocket_upgrade_seconds": ("Time from the request of a WebSocket to the end of the reply's head.", _ORIGIN),
    "rtmp_works": ("1 if this way leads to the media server, 0 otherwise.", _WAY),
    "rtmp_seconds": ("Time that Flash Player spends on this way: until the handshake, or until it fails.", _WAY),
    "timestamp_seconds": ("Time at which the probe of this host ended.", _HOST),
}

Sample = tuple[str, tuple[str, ...], float]  # name, label values, value


class _ProbeCollector(Collector):
    def __init__(self, results: Sequence[Result]) -> None:
        self._results = results

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families = {
            name: GaugeMetricFamily(f"flashpol_probe_{name}", about, labels=labels)
            for name, (about, labels) in METRICS.items()
        }
        for result in self._results:
            for name, labels, value in _samples(result):
                families[name].add_metric(labels, value)
        yield from (family for family in families.values() if family.samples)


def exposition(results: Sequence[Result]) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ProbeCollector(results))
    return generate_latest(registry).decode()


def _samples(result: Result) -> Iterator[Sample]:
    host = result.host
    yield "success", (host,), float(not result.failed)
    yield "duration_seconds", (host,), round(result.observation.seconds, 4)
    yield "timestamp_seconds", (host,), round(time())
    for severity, number in counts([result]).items():
        yield "findings", (host, severity), number
    for code, severity in sorted({f.code: f.severity for f in result.findings}.items()):
        yield "finding_info", (host, code, severity), 1
    for target in result.serving:
        labels = (host, str(target.address), str(target.port))
        if target.asked.received:
            yield "reply_seconds", labels, round(target.asked.received[-1].at, 6)
        yield "policy_bytes", labels, len(target.reply.file)
        yield "policy_info", (*labels, target.reply.sha256), 1
        yield "requests", labels, len(target.repeats)
        yield "requests_lost", labels, sum(not target.reply_to(exchange).served for exchange in target.repeats)
    secured = set()
    for target in result.observation.all_targets():
        labels = (host, str(target.address), str(target.port))
        if labels not in secured:  # two ways lead to one port
            yield from _tls_samples(target, labels)
        secured.add(labels)
        yield from _websocket_samples(target, result.observation, labels)
    for target, verdict in ways(result.observation):
        if target.way is not None and verdict.works is not None:
            way = (host, str(target.address), target.way.scheme, str(target.way.port))
            yield "rtmp_works", way, float(verdict.works)
            yield "rtmp_seconds", way, round(verdict.seconds, 6)
    for conclusion in result.conclusions:
        if conclusion.address not in result.tried:
            continue  # nothing is known about it, not even 0
        labels = (host, str(conclusion.address), conclusion.client)
        connects = conclusion.finds if conclusion.connects is None else conclusion.connects
        yield "client_connects", labels, float(connects)
        yield "client_wait_seconds", labels, math.inf if conclusion.waits is None else round(conclusion.waits, 4)


def _websocket_samples(target: Target, observation: Observation, labels: tuple[str, ...]) -> Iterator[Sample]:
    for origin, is_allowed in allowed(target, observation):
        yield "websocket_allowed", (*labels, origin), float(is_allowed)
        exchange = asked_for(target, origin)
        if exchange is not None and (seconds := upgrade_of(exchange).seconds) is not None:
            yield "websocket_upgrade_seconds", (*labels, origin), round(seconds, 6)


def _tls_samples(target: Target, labels: tuple[str, ...]) -> Iterator[Sample]:
    handshake, certificate = target.handshake, own_certificate(target)
    if handshake is not None and handshake.completed:
        yield "tls_handshake_seconds", labels, round(handshake.ended, 6)
        yield "tls_info", (*labels, handshake.version, handshake.suite), 1
    if certificate is not None:
        yield "tls_certificate_not_after_timestamp_seconds", labels, certificate.not_after
        yield "tls_certificate_info", (*labels, certificate.sha256), 1
