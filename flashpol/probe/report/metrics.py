"""Prometheus' text format, for the textfile collector of node_exporter.

Written here and not with prometheus-client, which takes 40 ms to import: names and help stand in one table.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from time import time

from flashpol.probe.reply import Reply
from flashpol.probe.report import Result, counts

Sample = tuple[dict[str, str], float]

# Name (behind flashpol_probe_) -> what it says. All are gauges: each probe begins anew.
METRICS = {
    "success": "1 if no error was found on this host, 0 otherwise.",
    "findings": "Findings by severity.",
    "finding_info": "1 for each code that was found on this host.",
    "duration_seconds": "How long the probe of this host took.",
    "reply_seconds": "From SYN to the last byte of the policy, on the connection that asked as clients do.",
    "policy_bytes": "Size of the policy without its NUL.",
    "policy_info": "1; the SHA-256 of the policy without its NUL.",
    "requests": "Requests as clients send them, whole and in one segment.",
    "requests_lost": "Those that got no whole policy.",
    "client_connects": "1 if this client connects or finds a policy, 0 otherwise.",
    "client_wait_seconds": "How long its user waits to know; +Inf for ever.",
    "timestamp_seconds": "When the probe of this host ended.",
}


def exposition(results: Sequence[Result]) -> str:
    samples: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for result in results:
        for name, labels, value in _samples(result):
            samples[name].append((labels, value))
    return "".join(_family(name, samples[name]) for name in METRICS if samples[name])


def _samples(result: Result) -> Iterator[tuple[str, dict[str, str], float]]:
    host = {"host": result.host}
    yield "success", host, float(not result.failed)
    yield "duration_seconds", host, round(result.observation.seconds, 4)
    yield "timestamp_seconds", host, round(time())
    for severity, number in counts([result]).items():
        yield "findings", {**host, "severity": severity}, number
    for code, severity in sorted({f.code: f.severity for f in result.findings}.items()):
        yield "finding_info", {**host, "code": code, "severity": severity}, 1
    for target in result.serving:
        labels = {**host, "address": str(target.address), "port": str(target.port)}
        file = target.reply.file
        if target.asked.received:
            yield "reply_seconds", labels, round(target.asked.received[-1].at, 6)
        yield "policy_bytes", labels, len(file)
        yield "policy_info", {**labels, "sha256": target.reply.sha256}, 1
        yield "requests", labels, len(target.repeats)
        yield "requests_lost", labels, sum(not Reply.of(exchange).served for exchange in target.repeats)
    for conclusion in result.conclusions:
        if conclusion.address not in result.tried:
            continue  # not even 0 is known of it
        labels = {**host, "address": str(conclusion.address), "client": conclusion.client}
        connects = conclusion.finds if conclusion.connects is None else conclusion.connects
        yield "client_connects", labels, float(connects)
        waits = math.inf if conclusion.waits is None else round(conclusion.waits, 4)
        yield "client_wait_seconds", labels, waits


def _family(name: str, samples: Iterable[Sample]) -> str:
    full = f"flashpol_probe_{name}"
    lines = [f"# HELP {full} {METRICS[name]}", f"# TYPE {full} gauge"]
    lines += [f"{full}{{{_labels(labels)}}} {_number(value)}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _labels(labels: dict[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return "+Inf" if math.isinf(value) else f"{value:g}" if value % 1 else f"{value:.0f}"
