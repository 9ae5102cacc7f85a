"""Distributions, listeners and workers."""

from collections.abc import Iterable, Sequence

from flashpol.admin.page.chart import bars, key
from flashpol.admin.page.formatting import UNKNOWN, about, count, duration, percent, rate, share, size
from flashpol.admin.page.markup import Markup, el
from flashpol.admin.page.overview import FAILED
from flashpol.admin.status import Json

ENDINGS = {
    "http": "spoke HTTP",
    "tls": "spoke TLS",
    "rtmp": "spoke RTMP",
    "rtmpe": "spoke RTMPE",
    "other": "something else",
    "capacity": "no room",
    "shutdown": "cut off at the end",
    "crashed": "lost with their worker",
    "upstream": "no upstream took them",
    "max_connections": "over max_connections",
    "max_sessions": "over max_sessions",
    "max_slow_replies": "over max_slow_replies",
    "max_address_connections": "too many from an address",
    "max_address_rate": "too fast from an address",
    "network": "from a network that is denied",
    "proxy_untrusted": "not from a proxy",
    "proxy_malformed": "without a PROXY header",
    "proxy_oversized": "with too long a PROXY header",
}


def table(name: str, heads: Sequence[str], rows: Iterable[Sequence[object]], layout: str | None = None) -> Markup:
    """The first cell of a row is its head. Roles are said: laid out as cards, browsers forget that it is a table.

    layout: "cards" makes each row one where there is no room for many columns.
    """
    return el(
        "table",
        el("thead", el("tr", *(el("th", head, scope="col", role="columnheader") for head in heads), role="row"),
           role="rowgroup"),
        el("tbody", *(_row(heads, row) for row in rows), role="rowgroup"),
        role="table",
        class_=layout,
        aria_labelledby=name,
    )  # fmt: skip


def _row(heads: Sequence[str], row: Sequence[object]) -> Markup:
    first, *rest = row
    cells = (
        el("td", el("span", value), data_head=head, role="cell") for head, value in zip(heads[1:], rest, strict=True)
    )
    return el("tr", el("th", first, scope="row", role="rowheader"), *cells, role="row")


def _section(name: str, title: str, *children: object) -> Markup:
    return el("section", el("h2", title, id=name), *children, aria_labelledby=name)


def latency(status: Json) -> Markup:
    """From the first bucket with an answer to the last."""
    bounds, total = status["bucket_bounds_seconds"], status["total"]["duration_counts"]
    minute = status["minute"]["duration_counts"] if status["minute"] else [0] * len(total)
    used = [i for i, number in enumerate(total) if number]
    if not used:
        return _section("latency", "Time to answer", el("p", "No answer yet.", class_="quiet"))
    names = [f"≤ {duration(bound)}" for bound in bounds] + [f"> {duration(bounds[-1])}"]
    widest = max(max(share(c, sum(counts)) for c in counts) for counts in (total, minute))
    rows = [
        (
            names[i],
            bars(*((kind, share(share(counts[i], sum(counts)), widest)) for kind, counts in
                   (("lately", minute), ("ever", total)))),
            percent(share(minute[i], sum(minute))),
            percent(share(total[i], sum(total))),
        )
        for i in range(used[0], used[-1] + 1)
    ]  # fmt: skip
    words = [
        f"{when}: half within {about(bounds, counts, 0.5)}, 99 % within {about(bounds, counts, 0.99)}."
        for when, counts in (("Last minute", minute), ("Since start", total))
    ]
    return _section(
        "latency",
        "Time to answer",
        el("p", "From accept to the last byte handed to the kernel; estimates from the buckets below.", class_="quiet"),
        *(el("p", each) for each in words),
        key(("lately", "last minute"), ("ever", "since start")),
        table("latency", ("Within", "Share", "Last minute", "Since start"), rows, "histogram"),
    )


def endings(status: Json) -> Markup:
    total, minute = status["total"], status["minute"]
    parts = [
        ("relayed, and over", "relayed", None),
        ("no request in time", "timeouts", None),
        ("closed by the client first", "resets", None),
        *((words, "refused", reason) for reason, words in ENDINGS.items()),
    ]

    def of(counted: Json | None, field: str, reason: str | None) -> str:
        if counted is None:
            return UNKNOWN
        return count(counted[field] if reason is None else counted[field][reason])

    seen = [part for part in parts if of(total, *part[1:]) != "0"]
    rows = [
        (el("span", words, *([" ", el("code", reason)] if reason else [])), of(minute, field, reason),
         of(total, field, reason))
        for words, field, reason in seen
    ]  # fmt: skip
    never = "; ".join(words for words, *_ in (part for part in parts if part not in seen))
    return _section(
        "endings",
        "Ended without an answer",
        table("endings", ("Why", "Last minute", "Since start"), rows) if rows else "",
        el("p", f"Never yet: {never}.", class_="quiet") if never else "",
    )


def listeners(status: Json) -> Markup:
    now = status["now"]
    rows = []
    for each in status["listeners"]:
        queue = each["accept_queue"]
        full = share(queue["length"], queue["limit"])
        rows.append(
            (
                el("bdi", each["name"]),
                el("bdi", each["address"]),
                rate(now["listeners"][each["name"]], now["seconds"]) if now else UNKNOWN,
                count(each["replies"]),
                count(each["open"]),
                count(each["parked"]),
                el(
                    "span",
                    f"{count(queue['length'])} of {count(queue['limit'])}",
                    bars(("lately", full)),
                    class_="queue",
                ),
            )
        )
    heads = ("Listener", "Address", "Answers/s", "Answers", "Open", "Silent", "Accept queue")
    return _section("listeners", "Listeners", table("listeners", heads, rows, "cards"))


def upstreams(status: Json) -> Markup | str:
    """Nothing where there are no shared ports."""
    if not status["upstreams"]:
        return ""
    now, minute = (_by_upstream(status[name]) for name in ("now", "minute"))
    rows = []
    for each in status["upstreams"]:
        which = each["listener"], each["upstream"]
        lately = minute.get(which)
        failed = sum(lately["failures"][why] for why in FAILED) if lately else 0
        took = bool(lately and lately["started"])
        kind, words = (
            ("fair", "some failed") if failed and took else ("bad", "takes nobody") if failed else ("good", "well")
        )
        state = el("span", words, class_=f"badge {kind}") if took or failed else UNKNOWN
        sent = sum(now[which]["bytes"].values()) / status["now"]["seconds"] if which in now else None
        rows.append(
            (
                el("bdi", each["upstream"]),
                el("bdi", each["listener"]),
                state,
                count(each["open"]),
                count(each["connecting"]),
                count(each["started"]),
                count(failed) if lately else UNKNOWN,
                UNKNOWN if sent is None else f"{size(sent)}/s",
            )
        )
    heads = ("Upstream", "Listener", "Last minute", "Open", "Connecting", "Started", "Failed lately", "Bytes")
    return _section("upstreams", "Upstreams", table("upstreams", heads, rows, "cards"))


def _by_upstream(window: Json | None) -> dict[tuple[str, str], Json]:
    return {(each["listener"], each["upstream"]): each for each in window["upstreams"]} if window else {}


def workers(status: Json) -> Markup:
    now = status["now"]
    rows = []
    for each in status["workers"]:
        used = now["workers"].get(str(each["pid"])) if now else None
        state = "serves" if each["up"] else "does not serve" if each["pid"] else "down"
        rows.append(
            (
                str(each["slot"]),
                el("span", state, class_=f"badge {'good' if each['up'] else 'bad'}"),
                str(each["pid"] or UNKNOWN),
                duration(each["lag_seconds"]),
                UNKNOWN if used is None else percent(share(used, now["seconds"])),
                UNKNOWN if each["resident_bytes"] is None else size(each["resident_bytes"]),
                count(each["restarts"]),
            )
        )
    heads = ("Worker", "State", "Process", "Loop lag", "CPU", "Memory", "Restarts")
    return _section("workers", "Workers", table("workers", heads, rows, "cards"))
