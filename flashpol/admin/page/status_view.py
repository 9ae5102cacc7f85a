"""Figures of the status document as the templates show them: distributions, outcomes, tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashpol.admin.formatting import about, duration, share
from flashpol.admin.problems import FAILING, REACHABLE, UNREACHABLE, UPSTREAM_FAILURES, Json, upstream_state

# How connections end without a reply: words, the counter, and of a refusal its reason.
OUTCOMES = (
    ("relayed to an upstream", "relayed", None),
    ("HTTP: got a policy file, or carried RTMPT", "served", None),
    ("no request in time", "timeouts", None),
    ("closed by the client", "resets", None),
)
REFUSALS = {
    "http": "spoke HTTP",
    "tls": "spoke TLS",
    "rtmp": "spoke RTMP",
    "rtmpe": "spoke RTMPE",
    "other": "sent something else",
    "capacity": "out of descriptors or memory",
    "shutdown": "cut off at shutdown",
    "crashed": "lost when a worker crashed",
    "upstream": "no upstream could be reached",
    "max_connections": "over the limit of connections",
    "max_sessions": "over the limit of relayed sessions",
    "max_slow_replies": "over the limit of slow replies",
    "max_address_connections": "too many from one address",
    "max_address_sessions": "too many sessions of one address",
    "max_address_rate": "too fast from one address",
    "network": "from a denied network",
    "proxy_untrusted": "not from a trusted proxy",
    "proxy_malformed": "without a valid PROXY header",
    "proxy_oversized": "with too long a PROXY header",
    "tls_handshake": "TLS handshake failed",
    "tls_only": "spoke no TLS where it must",
    "max_handshakes": "over the limit of TLS handshakes",
    "http_malformed": "sent HTTP that is malformed",
    "origin": "from a page whose origin may not connect",
}
STATE_BADGES = {REACHABLE: "good", FAILING: "fair", UNREACHABLE: "bad"}


@dataclass(frozen=True)
class Summary:
    """Sums over listeners and workers."""

    queue_length: int
    queue_limit: int
    workers_up: int
    restarts: int
    refused: int
    median: str  # time to reply, over the last minute if it is known
    p99: str

    @classmethod
    def of(cls, status: Json) -> "Summary":
        queues = [listener["accept_queue"] for listener in status["listeners"]]
        counts = (status["minute"] or status["total"])["duration_counts"]
        bounds = status["bucket_bounds_seconds"]
        return cls(
            sum(queue["length"] for queue in queues),
            sum(queue["limit"] for queue in queues),
            sum(worker["up"] for worker in status["workers"]),
            sum(worker["restarts"] for worker in status["workers"]),
            sum(status["total"]["refused"].values()),
            about(bounds, counts, 0.5),
            about(bounds, counts, 0.99),
        )


@dataclass(frozen=True)
class LatencyRow:
    """A bucket: its share of the replies, and the width of the bar that shows it, of 1."""

    bound: str
    minute: float
    total: float
    minute_width: float
    total_width: float


@dataclass(frozen=True)
class Latency:
    """rows: the buckets from the first to the last that has a reply; estimates: (when, median, p99)."""

    rows: Sequence[LatencyRow]
    estimates: Sequence[tuple[str, str, str]]


def latency(status: Json) -> Latency | None:
    """The distribution of the time to reply; None if there was no reply yet."""
    bounds, total = status["bucket_bounds_seconds"], status["total"]["duration_counts"]
    minute = status["minute"]["duration_counts"] if status["minute"] else [0] * len(total)
    used = [i for i, number in enumerate(total) if number]
    if not used:
        return None
    names = [f"≤ {duration(bound)}" for bound in bounds] + [f"> {duration(bounds[-1])}"]
    shares = [[share(number, sum(counts)) for number in counts] for counts in (minute, total)]
    widest = max(map(max, shares))
    rows = [
        LatencyRow(names[i], *(each[i] for each in shares), *(share(each[i], widest) for each in shares))
        for i in range(used[0], used[-1] + 1)
    ]
    windows = (("Last minute", minute), ("Since start", total))
    return Latency(rows, [(when, about(bounds, c, 0.5), about(bounds, c, 0.99)) for when, c in windows])


@dataclass(frozen=True)
class OutcomeRow:
    words: str
    reason: str | None
    minute: int | None
    total: int


def outcomes(status: Json) -> list[OutcomeRow]:
    """How connections ended without a policy, as far as any did."""
    kinds = [*OUTCOMES, *((words, "refused", reason) for reason, words in REFUSALS.items())]

    def counted(counters: Json, field: str, reason: str | None) -> int:
        number: int = counters[field] if reason is None else counters[field][reason]
        return number

    return [
        OutcomeRow(words, reason, counted(minute, field, reason) if (minute := status["minute"]) else None, number)
        for words, field, reason in kinds
        if (number := counted(status["total"], field, reason))
    ]


@dataclass(frozen=True)
class UpstreamRow:
    """failed: in the last minute; bytes_rate: both directions, a second. None: not known yet."""

    upstream: str
    listener: str
    state: str | None
    badge: str
    open: int
    connecting: int
    started: int
    failed: int | None
    bytes_rate: float | None


def upstreams(status: Json) -> list[UpstreamRow]:
    """Empty where there are no shared ports."""
    now, minute = (_by_route(status[name]) for name in ("now", "minute"))
    rows = []
    for each in status["upstreams"]:
        route = each["listener"], each["upstream"]
        window, recent = minute.get(route), now.get(route)
        state = upstream_state(window)
        rows.append(
            UpstreamRow(
                each["upstream"],
                each["listener"],
                state,
                STATE_BADGES[state] if state else "",
                each["open"],
                each["connecting"],
                each["started"],
                sum(window["failures"][why] for why in UPSTREAM_FAILURES) if window else None,
                sum(recent["bytes"].values()) / status["now"]["seconds"] if recent else None,
            )
        )
    return rows


def _by_route(window: Json | None) -> dict[tuple[str, str], Json]:
    return {(each["listener"], each["upstream"]): each for each in window["upstreams"]} if window else {}


def cpu_shares(status: Json) -> dict[int, float]:
    """By pid: the share of a CPU that a worker used in the last seconds, as far as that is known."""
    now = status["now"]
    return {int(pid): share(seconds, now["seconds"]) for pid, seconds in now["workers"].items()} if now else {}
