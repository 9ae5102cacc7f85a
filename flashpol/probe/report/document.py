"""The JSON document: all of the text report, and more. docs/reference.md describes it; the format is stable."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flashpol.probe.exchange import Exchange
from flashpol.probe.model import Observation, Question, Target
from flashpol.probe.reply import printable
from flashpol.probe.report import Result, counts
from flashpol.probe.report.rtmp import fields as rtmp_fields
from flashpol.probe.report.secure import certificate_fields, handshake_fields
from flashpol.probe.report.websocket import fields as websocket_fields

# Incremented when a field is removed or changes its meaning, not when one is added.
VERSION = 1


def document(results: Sequence[Result]) -> dict[str, Any]:
    numbers = {f"{severity}s": number for severity, number in counts(results).items()}
    return {
        "version": VERSION,
        "hosts": [_host(result) for result in results],
        "summary": {"hosts": len(results), **numbers},
    }


def _host(result: Result) -> dict[str, Any]:
    seen = result.observation
    return {
        "host": seen.host,
        "error": seen.unresolved or None,
        **_question(seen.question),
        "ok": not result.failed,
        "connections": seen.connections,
        "seconds": round(seen.seconds, 3),
        "addresses_left_out": seen.left_out,
        "addresses": [
            {
                "address": str(address),
                "family": "ipv6" if address.is_ipv6 else "ipv4",
                "places": [_target(target, seen) for target in targets],
                "clients": [
                    {
                        "client": conclusion.client,
                        "connects": conclusion.connects,
                        "finds_policy": conclusion.finds,
                        "waits_seconds": None if conclusion.waits is None else round(conclusion.waits, 3),
                        "waits_for_ever": conclusion.waits is None,
                        "story": [*conclusion.story, conclusion.reason],
                    }
                    for conclusion in result.conclusions
                    if conclusion.address == address
                ],
            }
            for address, targets in seen.targets.items()
        ],
        "findings": [
            {**asdict(finding), "policy": asdict(finding.policy) if finding.policy else None}
            for finding in result.findings
        ],
    }


def _question(question: Question) -> dict[str, Any]:
    return {
        "port": question.port,
        "from": question.content,
        "location": question.location,
        "tls": question.tls,
        "server_name": question.server_name,
        "websocket": None if question.websocket is None else str(question.websocket),
        "origins": list(question.origins),
        "rtmp": None if question.rtmp is None else str(question.rtmp),
        "proxy": None if question.rtmp is None or question.rtmp.proxy is None else str(question.rtmp.proxy),
    }


def _target(target: Target, seen: Observation) -> dict[str, Any]:
    file = target.reply.file if target.serves else None
    return {
        "role": target.role,
        "port": target.port,
        "kind": target.reply.kind,
        "policy_bytes": None if file is None else len(file),
        "policy_sha256": None if file is None else target.reply.sha256,
        "certificate": certificate_fields(target),
        "websocket": websocket_fields(target, seen),
        "rtmp": rtmp_fields(target, seen),
        "asked": _exchange(target.asked),
        "tried": {name: [_exchange(one) for one in exchanges] for name, exchanges in target.tried.items()},
    }


def _exchange(exchange: Exchange) -> dict[str, Any]:
    return {
        "reached": exchange.reached,
        "error": exchange.error or None,
        "end": exchange.end,
        "seconds": round(exchange.ended, 4),
        "reply_bytes": len(exchange.data),
        "segments": exchange.segments,
        "tls": handshake_fields(exchange.tls),
        "events": [
            {"at": round(event.at, 4), "what": event.what, "bytes": len(event.data), "data": printable(event.data)}
            for event in exchange.events[:_MAX_EVENTS]
        ],
    }


# Of one connection: a reply that drips for three seconds has thousands.
_MAX_EVENTS = 50
