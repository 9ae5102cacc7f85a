"""What one wants to know first: is all well, and what happens now."""

from collections.abc import Iterator

from flashpol.admin.page.formatting import UNKNOWN, about, count, duration, moment, percent, rate, share
from flashpol.admin.page.markup import Markup, el
from flashpol.admin.status import Json

# From here on a queue is called filling: bursts of clients take some of it every day.
QUEUE_FILLING = 0.5
# A loop that is so late, in seconds, makes clients wait noticeably.
LATE = 0.5

# Reasons of refusals that are not the client's doing.
LATELY = {
    "capacity": "found no room",
    "max_connections": "were over max_connections",
    "max_address_connections": "were over max_address_connections",
    "max_sessions": "were over max_sessions",
    "max_slow_replies": "were over max_slow_replies",
    "crashed": "were lost with a worker",
    "upstream": "found no upstream that takes them",
}
# Why an upstream could not be reached, as far as that was its own doing.
FAILED = {
    "refused": "refused",
    "unreachable": "unreachable",
    "timeout": "not answered in time",
    "unresolved": "without an address for its name",
}

WORDS = {
    "ready": ("good", "Serving"),
    "starting": ("fair", "Starting"),
    "draining": ("fair", "Finishing, no new connections"),
}


def troubles(status: Json) -> Iterator[str]:
    """What somebody should look at, each in a sentence."""
    if not status["reload"]["successful"] and status["reload"]["error"]:
        yield f"The last reload failed, the earlier configuration stays: {status['reload']['error']}"
    for worker in status["workers"]:
        late = f"late by {duration(worker['lag_seconds'])}" if worker["lag_seconds"] >= LATE else ""
        if not worker["up"]:
            why = f": its loop stands still, {late}" if worker["pid"] and late else ""
            yield f"Worker {worker['slot']} does not serve{why}."
        elif late:
            yield f"Worker {worker['slot']} is {late}."
    for listener in status["listeners"]:
        queue = listener["accept_queue"]
        full = share(queue["length"], queue["limit"])
        if full >= QUEUE_FILLING:
            yield f"The accept queue of {listener['name']} is {percent(full)} full."
    if status["minute"]:
        yield from _troubles_lately(status["minute"])


def _troubles_lately(minute: Json) -> Iterator[str]:
    for reason, what in LATELY.items():
        if minute["refused"][reason]:
            yield f"{count(minute['refused'][reason])} connections {what} in the last minute."
    for each in minute["upstreams"]:
        failed = [
            f"{count(number)} {FAILED[why]}" for why, number in each["failures"].items() if number and why in FAILED
        ]
        if failed and not each["started"]:
            which = f"Upstream {each['upstream']} of {each['listener']}"
            yield f"{which} took nobody in the last minute: {', '.join(failed)}."
    if minute["accept_errors"]:
        yield f"{count(minute['accept_errors'])} accepts failed in the last minute: see the log."


def header(status: Json) -> Markup:
    kind, words = WORDS[status["state"]]
    return el(
        "header",
        el("h1", "flashpol", el("small", status["version"])),
        el("p", el("span", words, class_=f"badge {kind}"), class_="state"),
        el("p", "as of ", el("time", moment(status["time"])[11:]), class_="quiet"),
        # The script shows it: without one there is nothing to pause.
        el("button", "Pause updates", type="button", id="pause", hidden=True, data_version="pause"),
    )


def attention(status: Json) -> Markup:
    found = list(troubles(status))
    body = el("ul", *(el("li", each) for each in found)) if found else el("p", "Nothing needs attention.")
    return el(
        "section",
        # Only this is read out when it changes: the figures below change every two seconds.
        el("h2", f"Attention: {len(found)}" if found else "All is well", aria_live="polite"),
        body,
        class_=f"attention {'bad' if found else 'good'}",
    )


def _tile(label: str, value: str, note: str) -> Markup:
    return el("div", el("dt", label), el("dd", value, class_="value"), el("dd", note, class_="quiet"))


def tiles(status: Json) -> Markup:
    now, minute, total = status["now"], status["minute"], status["total"]
    bounds, workers = status["bucket_bounds_seconds"], status["workers"]
    queues = [listener["accept_queue"] for listener in status["listeners"]]
    length, limit = (sum(queue[what] for queue in queues) for what in ("length", "limit"))
    refused = sum(total["refused"].values())
    lately = minute["duration_counts"] if minute else total["duration_counts"]
    return el(
        "dl",
        _tile(
            "Answers per second",
            rate(now["replies"], now["seconds"]) if now else UNKNOWN,
            f"{count(total['replies'])} since start",
        ),
        _tile(
            "99 % within",
            about(bounds, lately, 0.99),
            f"half within {about(bounds, lately, 0.5)}; {'last minute' if minute else 'since start'}",
        ),
        _tile(
            "Open connections",
            count(total["open"]),
            f"{count(total['parked'])} silent, {count(total['sessions'])} sessions, "
            f"{count(total['slow_replies'])} slow replies",
        ),
        _tile(
            "Refused per second",
            rate(sum(now["refused"].values()), now["seconds"]) if now else UNKNOWN,
            f"{count(refused)} since start",
        ),
        _tile("Accept queue", percent(share(length, limit)), f"{count(length)} of {count(limit)} waiting"),
        _tile(
            "Workers serving",
            f"{sum(worker['up'] for worker in workers)} of {len(workers)}",
            f"{count(sum(worker['restarts'] for worker in workers))} restarts"
            + (f", {count(status['draining_workers'])} finishing" if status["draining_workers"] else ""),
        ),
        class_="tiles",
    )


def reload(status: Json) -> Markup:
    facts = status["reload"]
    when = moment(facts["timestamp"]) if facts["timestamp"] else UNKNOWN
    failed = bool(facts["error"]) and not facts["successful"]
    return el(
        "section",
        el("h2", "Configuration", id="configuration"),
        el(
            "p",
            el("span", "Last reload failed" if failed else "In order", class_=f"badge {'bad' if failed else 'good'}"),
        ),
        el("p", "What runs was loaded ", el("time", when), "."),
        el("pre", facts["error"], tabindex=0, role="group", aria_label="Why it failed") if failed else "",
        aria_labelledby="configuration",
    )
