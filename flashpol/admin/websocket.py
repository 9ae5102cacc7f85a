"""What operators are told about WebSocket: upgrades that are refused, sessions that end, and what to do about each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from flashpol.admin.formatting import count, percent, share
from flashpol.admin.problem_kinds import ERROR, WARNING, Problem

# This share of a path's upgrades, and at least so many in a minute: scanners alone are fewer.
REFUSED, REFUSED_OF = 0.05, 5
# The same of requests without the fields of an upgrade, and of malformed ones: people open the URL, and scanners come.
NO_UPGRADE, NO_UPGRADE_OF = 0.2, 5
MALFORMED, MALFORMED_OF = 0.2, 5
# The same of sessions that end because the client does not reply to a ping: players leave tunnels, and laptops sleep.
PINGS, PINGS_OF = 0.05, 5
NGINX = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'

Json = dict[str, Any]


class Refusal(NamedTuple):
    """Upgrades that were not accepted, by result: what happened, and what an operator can do."""

    words: str
    advice: str


# In the order of `_websocket.RESULTS`, but for `accepted`.
REFUSALS: Mapping[str, Refusal] = {
    "origin": Refusal(
        "the page's origin may not connect",
        "if it should, grant its host in the policy, or add it to origins of the path",
    ),
    "no_origin": Refusal(
        "a request without Origin: a program, not a page",
        "programs of your own need without_origin = true on the path",
    ),
    "no_upgrade": Refusal(
        "a request that asks for no WebSocket",
        "a browser that opened the URL, or a proxy that drops Upgrade: docs/guide/websocket.md has its lines",
    ),
    "malformed": Refusal(
        "a handshake that is not WebSocket's, or an Origin that is none",
        "scanners and old programs do this; if there are many, flashpol probe --websocket URL says more",
    ),
    "upstream": Refusal(
        "the application could not be reached",
        "start it, or correct upstream of the path; the log says which backend is down and why",
    ),
    "capacity": Refusal(
        "a limit was reached, or descriptors or memory were short",
        "flashpol_refused_total says which limit: raise it, or add workers or hosts",
    ),
}
# How sessions end, by the side that said so first; in the order of `_websocket.CLOSE_CODES`.
_BY_CLIENT = {
    "1000": "the content closed the connection",
    "1001": "the browser left the page",
    "1002": "the client reported a violation of the protocol",
    "1003": "the client does not accept this kind of message",
    "1005": "the content closed the connection, without a code",
    "1006": "the connection broke off",
    "1007": "the client reported text that is not UTF-8",
    "1008": "the client refers to its policy",
    "1009": "a message was too large for the client",
    "1011": "the client reported an error of its own",
    "1012": "the client restarts",
    "1013": "the client has no room at present",
    "other": "another code of the content",
}
_BY_SERVER = {
    "1000": "the application closed the connection",
    "1001": "no reply to a ping, idle_timeout, max_duration, or the server stopped",
    "1002": "the client violated the protocol",
    "1003": "the client sent text, and text is false",
    "1005": "closed without a code",
    "1006": "the connection ended without a code",
    "1007": "the client sent text that is not UTF-8",
    "1008": "a policy was violated",
    "1009": "a message of the client was larger than websocket_message",
    "1011": "the application reset the connection, or memory was short",
    "1012": "a reload replaced the worker, and drain_timeout was over",
    "1013": "another connection needed the place",
    "other": "another code",
}
CLOSES: Mapping[str, Mapping[str, str]] = {"client": _BY_CLIENT, "server": _BY_SERVER}


def label_of(counters: Json) -> tuple[str, str]:
    """The listener and the path that these are of."""
    return counters["listener"], counters["path"]


def upgrades(counters: Json) -> int:
    """Requests for a path: those that were accepted and those that were not."""
    number: int = sum(counters["upgrades"].values())
    return number


def refused(counters: Json) -> int:
    number: int = upgrades(counters) - counters["upgrades"]["accepted"]
    return number


def ended(counters: Json) -> int:
    number: int = sum(sum(codes.values()) for codes in counters["closes"].values())
    return number


def total(status_or_window: Json, field: str) -> dict[str, int]:
    """A counter of all paths, by its label."""
    found: dict[str, int] = {}
    for each in status_or_window["websocket"]:
        for label, number in each[field].items():
            found[label] = found.get(label, 0) + number
    return found


def find_websocket_problems(status: Json) -> Iterator[Problem]:
    """Of the WebSocket paths in the status document."""
    if status["minute"]:
        since_start = {label_of(each): each for each in status["websocket"]}
        for each in status["minute"]["websocket"]:
            yield from _of_path(each, since_start[label_of(each)])


def _of_path(minute: Json, since_start: Json) -> Iterator[Problem]:
    path = f"{minute['path']} of {minute['listener']}"
    whole, results = upgrades(minute), minute["upgrades"]
    if number := results["upstream"]:
        message = (
            f"{_upgrades(number, path)} failed in the last minute, because the application could not be reached: "
            "the client got 502 or 504."
        )
        yield Problem("websocket-upstream", ERROR, message)
    number = results["origin"]
    first = number > 0 and since_start["upgrades"]["origin"] <= number
    if first or _many(number, whole, REFUSED, REFUSED_OF):
        yield Problem("websocket-origin", WARNING, _of_origins(number, path, since_start["refused_origins"], first))
    number = results["no_upgrade"]
    if _many(number, whole, NO_UPGRADE, NO_UPGRADE_OF):
        message = (
            f"{count(number)} requests for WebSocket path {path} in the last minute asked for no WebSocket "
            f"({percent(share(number, whole))}): a proxy in front may drop the fields Upgrade and Connection. nginx "
            f"passes them on with {NGINX}"
        )
        yield Problem("websocket-no-upgrade", WARNING, message)
    number = results["malformed"]
    if _many(number, whole, MALFORMED, MALFORMED_OF):
        message = (
            f"{_upgrades(number, path)} in the last minute were malformed ({percent(share(number, whole))}): "
            "the log says what is wrong with them."
        )
        yield Problem("websocket-malformed", WARNING, message)
    number, ends = minute["ping_timeouts"], ended(minute)
    if _many(number, ends, PINGS, PINGS_OF):
        message = (
            f"{percent(share(number, ends))} of the WebSocket sessions of {path} that ended in the last minute had a "
            f"client that did not reply to a ping ({count(number)}): players lost their network, or a proxy in front "
            "keeps connections whose client has gone."
        )
        yield Problem("websocket-pings", WARNING, message)


def _of_origins(number: int, path: str, origins: Sequence[Json], first: bool) -> str:
    most = max(origins, key=lambda each: each["times"], default=None)
    why = f": {most['reason']}" if most else "; the log names it"
    return (
        f"{_upgrades(number, path)} in the last minute {'was' if number == 1 else 'were'} refused for the page's origin"
        f"{', for the first time' if first else ''}{why}. Ruffle's content was told that it is connected. If the page "
        "should connect, grant its host in the policy, or add it to origins of the path."
    )


def _many(number: int, whole: int, part: float, at_least: int) -> bool:
    return number >= at_least and share(number, whole) >= part


def _upgrades(number: int, path: str) -> str:
    return f"{count(number)} WebSocket upgrade{'s' if number != 1 else ''} for {path}"
