"""What needs an operator's attention. The page and `/-/status` show this list, and nothing else judges the server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flashpol.admin.context import AdminContext, ListenerInfo
from flashpol.admin.formatting import count, duration, percent, share
from flashpol.policy import Finding, Severity

# Bursts of clients fill some of an accept queue every day; this share of it is a problem.
QUEUE_FILLING = 0.5
# Clients notice when the event loop of their worker is late by this many seconds.
LATE = 0.5

ERROR, WARNING = "error", "warning"
# Refusals that keep good clients out: the reason, how bad it is, what happened. One address that exceeds its limits
# may be an attacker, or a proxy in front of all clients.
REFUSALS_TO_REPORT = {
    "capacity": (ERROR, "refused: the workers were out of descriptors or memory"),
    "max_connections": (ERROR, "refused: max_connections or max_worker_connections was reached"),
    "max_sessions": (ERROR, "refused: max_sessions was reached"),
    "max_slow_replies": (ERROR, "refused: max_slow_replies was reached"),
    "upstream": (ERROR, "refused: no upstream could be reached"),
    "crashed": (ERROR, "lost when a worker crashed"),
    "max_address_connections": (WARNING, "refused: their address had reached max_address_connections"),
    "max_address_sessions": (WARNING, "refused: their address had reached max_address_sessions"),
    "max_address_rate": (WARNING, "refused: their address had reached max_address_rate"),
}
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
}
# Warnings of what an application may do that this server cannot observe: `flashpol probe` finds out.
_UNOBSERVED = ("FP710",)
REACHABLE, FAILING, UNREACHABLE = "reachable", "some failed", "unreachable"

Json = dict[str, Any]
Linted = Sequence[tuple[Sequence[ListenerInfo], Sequence[Finding]]]


@dataclass(frozen=True)
class Problem:
    """kind: a name that does not change; severity: `ERROR`, clients are affected now, or `WARNING`."""

    kind: str
    severity: str
    message: str


def find_problems(status: Json, context: AdminContext, linted: Linted = ()) -> list[Problem]:
    """Errors first.

    status: the rest of the status document, whose counters these are; linted: the policies with their findings.
    """
    found = [
        *_of_reload(status["reload"]),
        *_of_workers(status["workers"]),
        *_of_queues(status["listeners"]),
        *(_of_last_minute(status["minute"]) if status["minute"] else ()),
        *_of_policies(linted),
        *_of_security(context),
    ]
    return sorted(found, key=lambda problem: problem.severity != ERROR)


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


def _of_queues(listeners: Sequence[Json]) -> Iterator[Problem]:
    for listener in listeners:
        queue = listener["accept_queue"]
        full = share(queue["length"], queue["limit"])
        if full >= QUEUE_FILLING:
            message = f"The accept queue of {listener['name']} is {percent(full)} full."
            yield Problem("accept-queue", WARNING, message)


def _of_last_minute(minute: Json) -> Iterator[Problem]:
    for reason, (severity, words) in REFUSALS_TO_REPORT.items():
        number = minute["refused"][reason]
        if number:
            message = f"{_plural(number, 'connection')} in the last minute {'was' if number == 1 else 'were'} {words}."
            yield Problem(f"refused-{reason}", severity, message)
    for each in minute["upstreams"]:
        if upstream_state(each) == UNREACHABLE:
            failures = ((each["failures"][why], words) for why, words in UPSTREAM_FAILURES.items())
            which = ", ".join(f"{count(number)} {words}" for number, words in failures if number)
            message = (
                f"Upstream {each['upstream']} of {each['listener']} is unreachable: every attempt to connect in the "
                f"last minute failed ({which})."
            )
            yield Problem("upstream", ERROR, message)
        for why, words in OWN_FAILURES.items():
            if number := each["failures"][why]:
                which = f"{_plural(number, 'session')} of {each['listener']} to {each['upstream']}"
                yield Problem(why, ERROR, f"{which} {'was' if number == 1 else 'were'} {words} in the last minute.")
    if minute["accept_errors"]:
        message = f"{_plural(minute['accept_errors'], 'accept')} failed in the last minute; the log says why."
        yield Problem("accept-errors", ERROR, message)


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


def _plural(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'s' if number != 1 else ''}"
