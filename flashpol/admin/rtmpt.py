"""What operators see of RTMPT: tunnel sessions that end, requests that go wrong, and what to do about each."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flashpol.admin.formatting import count, percent, share
from flashpol.admin.problem_kinds import ERROR, WARNING, Problem

# This share of the sessions that end, and at least so many in a minute: players leave tunnels, and laptops sleep.
GHOSTS, GHOSTS_OF = 0.1, 5
# Requests for sessions that there are not: so many for each session that its client ended or left, and for each other
# one, whose client learns of its end by them. More than these, and at least so many in a minute, are a problem.
UNKNOWN_AFTER_CLIENT, UNKNOWN_AFTER_OTHERS, UNKNOWN_OF = 0.1, 2, 10

Json = dict[str, Any]

# How sessions end, in the order of `_tunnel.ENDS`.
ENDS: Mapping[str, str] = {
    "client": "the client closed the session",
    "upstream": "the application closed the connection",
    "client_reset": "the client's side was reset",
    "upstream_reset": "the application reset the connection",
    "idle": "no bytes came for idle_timeout",
    "duration": "max_duration was over",
    "shutdown": "the server stopped, or drain_timeout was over after a reload",
    "silent": "no bytes came for silent_timeout after it began",
    "evicted": "another connection needed the place",
    "protocol": "the client violated the protocol",
    "ping": "the client did not reply to a ping",
    "ghost": "the client sent no request for rtmpt_session_timeout",
    "crashed": "the worker died",
}
BY_CLIENT = ("client", "ghost")


class Irregular(NamedTuple):
    """Requests that did not come in their order, or got no good reply: what happened, and what an operator can do."""

    words: str
    advice: str


# By the counter.
IRREGULAR: Mapping[str, Irregular] = {
    "unknown": Irregular(
        "for a session that there is not: 404",
        "one or two follow an end; if many, a balancer sends requests to the wrong host, or somebody guesses ids",
    ),
    "reordered": Irregular(
        "came before an earlier one, and waited",
        "usual: browsers have two connections, and proxies more",
    ),
    "gaps": Irregular(
        "passed over: they had not come in time",
        "bytes of the client are lost: a proxy in front drops requests, or is slower than rtmpt_gap",
    ),
    "repeated": Irregular(
        "came once more",
        "a connection broke before the reply: a proxy closes connections early, or a network is bad",
    ),
    "refused": Irregular(
        "too many at once, or too many bytes: 503",
        "the application reads slowly; if it does so in bursts, raise rtmpt_buffer",
    ),
    "forward_failures": Irregular(
        "another worker has the session, and did not reply",
        "a worker ended or has stalled: the log says which, and why",
    ),
}


def ended(counters: Json) -> int:
    number: int = sum(counters["ends"].values())
    return number


def total(status_or_window: Json, field: str) -> int:
    """A counter over all listeners."""
    number: int = sum(each[field] for each in status_or_window["rtmpt"])
    return number


def total_end(status_or_window: Json, end: str) -> int:
    number: int = sum(each["ends"][end] for each in status_or_window["rtmpt"])
    return number


def find_rtmpt_problems(status: Json) -> Iterator[Problem]:
    """Of the tunnel sessions in the status document."""
    if status["minute"]:
        for each in status["minute"]["rtmpt"]:
            yield from _of_listener(each)


def _of_listener(minute: Json) -> Iterator[Problem]:
    listener, ends = minute["listener"], minute["ends"]
    if number := minute["forward_failures"]:
        message = (
            f"{_requests(number)} of {listener} for tunnel sessions of another worker got no reply of it in the last "
            "minute, so their clients have lost the session: that worker ended or has stalled; the log says which."
        )
        yield Problem("rtmpt-forwarding", ERROR, message)
    number, part = ends["ghost"], share(ends["ghost"], ended(minute))
    if number >= GHOSTS_OF and part >= GHOSTS:
        message = (
            f"{percent(part)} of the tunnel sessions of {listener} that ended in the last minute had a client that "
            f"sent no request for rtmpt_session_timeout ({count(number)}): players lost their network, or a proxy or "
            "a balancer in front loses requests, or sends them to another host."
        )
        yield Problem("rtmpt-ghosts", WARNING, message)
    by_client = sum(ends[end] for end in BY_CLIENT)
    usual = UNKNOWN_AFTER_CLIENT * by_client + UNKNOWN_AFTER_OTHERS * (ended(minute) - by_client)
    number = minute["unknown"]
    if number >= UNKNOWN_OF and number > usual:
        message = (
            f"{_requests(number)} of {listener} in the last minute were for tunnel sessions that there are not. If "
            "several hosts are behind a balancer, it has to send the requests of a session to one host: give each a "
            "letter of its own (host in [server]), and have the balancer look at it. Otherwise somebody guesses ids."
        )
        yield Problem("rtmpt-unknown", WARNING, message)


def _requests(number: int) -> str:
    return f"{count(number)} request{'s' if number != 1 else ''}"
