"""What needs an operator's attention. The page and `/-/status` show this list, and nothing else judges the server.

The log, the alerts of deploy/prometheus and the dashboard report the same: tests/test_attention.py compares them.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.formatting import about, count, duration, percent, quantile, share
from flashpol.admin.problem_kinds import ERROR, REFUSALS_TO_REPORT, WARNING, Problem
from flashpol.admin.rtmpt import find_rtmpt_problems
from flashpol.admin.tls import find_certificate_findings, find_tls_problems
from flashpol.admin.websocket import find_websocket_problems
from flashpol.policy import Finding, Severity

# Bursts of clients fill some of an accept queue every day; this share of it is a problem.
QUEUE_FILLING = 0.5
# Local ports towards an upstream are scarce when more than this share of them is in use.
PORTS_LOW = 0.75
# Clients notice when the event loop of their worker is late by this many seconds.
LATE = 0.5
# A worker without descriptors closes idle clients for new ones: this share of them is a problem before.
FILES_FILLING = 0.8
# One reply in a hundred took longer than this many seconds, of at least so many: Flash Player gives up after 3 s.
SLOW, SLOW_OF = 1.0, 100
# This share of all connections timed out, and at least so many in a minute: the requests may be lost on their way.
TIMEOUTS, TIMEOUTS_OF = 0.2, 60

# Why an upstream could not be reached, where the reason lies with the upstream or the way to it.
UPSTREAM_FAILURES = {
    "refused": "refused",
    "unreachable": "without a route",
    "timeout": "timed out",
    "unresolved": "without an address for its name",
}
# The same, where the reason lies with this server: the kind of the problem, and what happened.
OWN_FAILURES = {
    "connecting": "refused: as many others as may were waiting to be connected (a quarter of max_sessions)",
    "ports": "refused: no local port was free for it, or one client address had its share",
}
# Warnings of what an application may do that this server cannot observe: `flashpol probe` finds out.
_UNOBSERVED = ("FP710",)
REACHABLE, FAILING, UNREACHABLE = "reachable", "some failed", "unreachable"

Json = dict[str, Any]
Linted = Sequence[tuple[Sequence[ListenerInfo], Sequence[Finding]]]


def find_problems(status: Json, context: AdminContext, linted: Linted = ()) -> list[Problem]:
    """Errors first.

    status: the rest of the status document, whose counters these are; linted: the policies with their findings.
    """
    found = [
        *_of_reload(status["reload"]),
        *_of_workers(status["workers"]),
        *_of_queues(status["listeners"]),
        *_of_ports(status["upstreams"]),
        *(_of_last_minute(status["minute"], status["bucket_bounds_seconds"]) if status["minute"] else ()),
        *find_tls_problems(status),
        *find_websocket_problems(status),
        *find_rtmpt_problems(status),
        *find_configuration_problems(context, linted),
    ]
    return sorted(found, key=lambda problem: problem.severity != ERROR)


def find_configuration_problems(context: AdminContext, linted: Linted) -> list[Problem]:
    """Those of `CONFIGURATION_KINDS`."""
    return [
        *_of_policies(linted),
        *find_certificate_findings(context.certificates, time.time()),
        *(Problem("websocket", WARNING, f"Listener {name}: {text}.") for name, text in context.websocket_findings),
        *_of_security(context),
    ]


def upstream_state(minute: Json | None) -> str | None:
    """Of one upstream, from its counters of the last minute; None if there was no session to connect."""
    failed = sum(minute["failures"][why] for why in UPSTREAM_FAILURES) if minute else 0
    if not minute or not (failed or minute["started"]):
        return None
    return REACHABLE if not failed else FAILING if minute["started"] else UNREACHABLE


def _of_reload(reload: Json) -> Iterator[Problem]:
    if not reload["successful"] and reload["error"]:
        message = f"The last reload failed, and the earlier configuration stays in effect: {reload['error']}"
        yield Problem("reload", ERROR, message)


def _of_workers(workers: Sequence[Json]) -> Iterator[Problem]:
    for worker in workers:
        name, late = f"Worker {worker['slot']}", worker["lag_seconds"] >= LATE
        lag = duration(worker["lag_seconds"])
        if not worker["up"] and worker["pid"] and late:
            yield Problem("worker-stalled", ERROR, f"{name} has stalled: it has not served for {lag}.")
        elif not worker["up"]:
            yield Problem("worker-down", ERROR, f"{name} does not accept connections.")
        elif late:
            yield Problem("worker-late", WARNING, f"{name} is slow: its event loop is late by {lag}.")
        used = share(worker["open_files"] or 0, worker["max_files"] or 0)
        if used >= FILES_FILLING:
            message = f"{name} uses {percent(used)} of its {count(worker['max_files'])} file descriptors."
            yield Problem("files", WARNING, message)


def _of_queues(listeners: Sequence[Json]) -> Iterator[Problem]:
    for listener in listeners:
        queue = listener["accept_queue"]
        full = share(queue["length"], queue["limit"])
        if full >= QUEUE_FILLING:
            message = f"The accept queue of {listener['name']} is {percent(full)} full."
            yield Problem("accept-queue", WARNING, message)


def _of_ports(upstreams: Sequence[Json]) -> Iterator[Problem]:
    for each in upstreams:
        if each["ports"] > each["max_ports"] * PORTS_LOW:
            ports = f"{count(each['ports'])} of {count(each['max_ports'])} local ports"
            message = f"{ports} towards upstream {each['upstream']} of {each['listener']} are in use."
            yield Problem("ports-low", WARNING, message)


def _of_last_minute(minute: Json, bounds: Sequence[float]) -> Iterator[Problem]:
    for reason, refusals in REFUSALS_TO_REPORT.items():
        number = minute["refused"][reason]
        if number and share(number, minute["accepted"]) >= refusals.share:
            message = f"{_plural(number, 'connection')} in the last minute {_was(number)} {refusals.words}."
            yield Problem(f"refused-{reason}", refusals.severity, message)
    yield from _of_upstreams(minute["upstreams"])
    if minute["accept_errors"]:
        message = f"{_plural(minute['accept_errors'], 'accept')} failed in the last minute; the log says why."
        yield Problem("accept-errors", ERROR, message)
    for slot, number in minute["restarts"].items():
        if number:
            times = "" if number == 1 else f" {count(number)} times"
            message = f"Worker {slot} ended and was replaced{times} in the last minute; the log says why."
            yield Problem("worker-restarted", WARNING, message)
    number, part = minute["timeouts"], share(minute["timeouts"], minute["accepted"])
    if number >= TIMEOUTS_OF and part >= TIMEOUTS:
        message = f"{percent(part)} of the connections timed out in the last minute ({count(number)})."
        yield Problem("timeouts", WARNING, message)
    counts = minute["duration_counts"]
    if minute["replies"] >= SLOW_OF and (quantile(bounds, counts, 0.99) or 0) > SLOW:
        message = f"The 99th percentile of the time to reply was {about(bounds, counts, 0.99)} in the last minute."
        yield Problem("slow", WARNING, message)


def _of_upstreams(upstreams: Sequence[Json]) -> Iterator[Problem]:
    serving = {each["listener"] for each in upstreams if each["started"]}
    for each in upstreams:
        if upstream_state(each) == UNREACHABLE:
            failures = ((each["failures"][why], words) for why, words in UPSTREAM_FAILURES.items())
            which = ", ".join(f"{count(number)} {words}" for number, words in failures if number)
            message = (
                f"Upstream {each['upstream']} of {each['listener']} is unreachable: every attempt to connect in the "
                f"last minute failed ({which})."
            )
            if each["listener"] in serving:
                message += " Other upstreams of the listener accept sessions."
            yield Problem("upstream", WARNING if each["listener"] in serving else ERROR, message)
        for why, words in OWN_FAILURES.items():
            if number := each["failures"][why]:
                which = f"{_plural(number, 'session')} of {each['listener']} to {each['upstream']}"
                yield Problem(why, ERROR, f"{which} {_was(number)} {words} in the last minute.")


def _of_policies(linted: Linted) -> Iterator[Problem]:
    for listeners, findings in linted:
        by_severity = {
            severity: [
                finding for finding in findings if finding.severity is severity and finding.code not in _UNOBSERVED
            ]
            for severity in (Severity.ERROR, Severity.WARNING)
        }
        bad = [finding for each in by_severity.values() for finding in each]
        if not bad:
            continue
        first = listeners[0]
        port = f" served from port {first.served_from}" if first.served_from else ""
        numbers = " and ".join(_plural(len(each), severity.value) for severity, each in by_severity.items() if each)
        codes = ", ".join(sorted({finding.code for finding in bad}))
        message = f'The policy "{first.policy}"{port} has {numbers}: {codes}.'
        yield Problem("policy", ERROR if by_severity[Severity.ERROR] else WARNING, message)


def _of_security(context: AdminContext) -> Iterator[Problem]:
    if context.is_exposed:
        message = (
            f"The admin endpoint listens on {context.address} and asks for no password: "
            "listen on a loopback address, or let only trusted hosts reach it."
        )
        yield Problem("admin-exposed", WARNING, message)
    if context.workers_are_root:
        yield Problem("root", WARNING, "The workers run as root: set user to an unprivileged user.")


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _plural(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'s' if number != 1 else ''}"
