"""Differences between two probes of a host, for `--watch`."""

from flashpol.probe.report import Result
from flashpol.probe.report.rtmp import ways
from flashpol.probe.report.text import clean
from flashpol.probe.report.websocket import allowed
from flashpol.probe.tls.judgement import day, own_certificate


def facts(result: Result) -> dict[tuple[str, ...], str]:
    """Return the facts whose changes are reported, by subject. Times are not among them, since they always differ."""
    found: dict[tuple[str, ...], str] = {}
    for finding in result.findings:
        at = f" at {finding.where}" if finding.where else ""
        key: tuple[str, ...] = ("finding", finding.code, finding.where, finding.evidence if finding.policy else "")
        found[key] = f"{finding.severity} {finding.code} {finding.name}{at}: {clean(finding.message)}"
    for conclusion in result.conclusions:
        key = ("client", conclusion.client, str(conclusion.address))
        found[key] = f"{conclusion.client} at {conclusion.address}: {conclusion.verdict}"
    for target in result.serving:
        digest = target.reply.sha256[:12]
        found["policy", target.where] = f"policy at {target.where}: {len(target.reply.file):,} bytes, sha256 {digest}…"
    for target in result.observation.all_targets():
        if (own := own_certificate(target)) is not None:
            until = f"until {day(own.not_after)}, sha256 {own.sha256[:12]}…"
            found["certificate", target.where] = clean(f"certificate at {target.where}: {own.subject}, {until}")
        if target.handshake is not None and target.handshake.completed:
            found["tls", target.where] = f"TLS at {target.where}: {target.handshake.words}"
        for origin, is_allowed in allowed(target, result.observation):
            what = "allowed" if is_allowed else "refused"
            found["websocket", target.where, origin] = f"WebSocket at {target.where}: pages of {origin} are {what}"
    for target, verdict in ways(result.observation):
        state = "works" if verdict.works else verdict.words
        found["way", str(target.address), str(target.way)] = f"{target.way} at {target.address}: {clean(state)}"
    return found


def changes(before: Result, after: Result) -> list[str]:
    """Return lines: `- ` for facts that are gone, `+ ` for new ones."""
    old, new = facts(before), facts(after)
    # A finding whose numbers change (3 of 20) is still the same finding.
    same = {key for key in old.keys() & new.keys() if key[0] == "finding" or old[key] == new[key]}
    gone = [f"- {text}" for key, text in old.items() if key not in same]
    return gone + [f"+ {text}" for key, text in new.items() if key not in same]
