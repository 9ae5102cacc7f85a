"""Figures of WebSocket as the templates show them: paths, refused upgrades and origins, how sessions ended."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flashpol.admin.formatting import share
from flashpol.admin.tls import time_left
from flashpol.admin.websocket import CLOSES, REFUSALS, Json, label_of, refused, total, upgrades

# Rows of refused origins: each path of each worker keeps four.
SHOWN_ORIGINS = 20


@dataclass(frozen=True)
class PathRow:
    """rate: requests a second; refused_lately: of the last minute, with their share of all requests; refused: since the
    start; lost: clients that did not reply to a ping. None: not known yet."""

    listener: str
    path: str
    open: int
    rate: float | None
    accepted: int
    refused_lately: int | None
    refused_share: float | None
    refused: int
    lost: int


@dataclass(frozen=True)
class RefusalRow:
    words: str
    advice: str
    result: str
    minute: int | None
    total: int


@dataclass(frozen=True)
class OriginRow:
    origin: str
    listener: str
    path: str
    reason: str
    count: int
    last: str


@dataclass(frozen=True)
class CloseRow:
    words: str
    code: str
    by: str
    minute: int | None
    total: int


@dataclass(frozen=True)
class WebSocketFigures:
    """more_origins: those that are not shown."""

    paths: Sequence[PathRow]
    refusals: Sequence[RefusalRow]
    origins: Sequence[OriginRow]
    more_origins: int
    closes: Sequence[CloseRow]
    open: int


def websockets(status: Json) -> WebSocketFigures | None:
    """None if no listener has a WebSocket path."""
    if not status["websocket"]:
        return None
    now, minute = (_by_path(status[name]) for name in ("now", "minute"))
    seconds = status["now"]["seconds"] if status["now"] else 0.0
    results = total(status["minute"], "upgrades") if status["minute"] else None
    origins = sorted(
        ((each, path) for path in status["websocket"] for each in path["refused_origins"]),
        key=lambda pair: pair[0]["time"],
        reverse=True,
    )
    return WebSocketFigures(
        [_path_row(each, now.get(label_of(each)), minute.get(label_of(each)), seconds) for each in status["websocket"]],
        [
            RefusalRow(*REFUSALS[result], result, results[result] if results else None, number)
            for result, number in total(status, "upgrades").items()
            if number and result in REFUSALS
        ],
        [
            OriginRow(
                each["origin"], *label_of(path), each["reason"], each["times"], time_left(each["time"], status["time"])
            )
            for each, path in origins[:SHOWN_ORIGINS]
        ],
        max(0, len(origins) - SHOWN_ORIGINS),
        list(_close_rows(status)),
        sum(each["open"] for each in status["websocket"]),
    )


def _by_path(window: Json | None) -> dict[tuple[str, str], Json]:
    return {label_of(each): each for each in window["websocket"]} if window else {}


def _path_row(path: Json, now: Json | None, minute: Json | None, seconds: float) -> PathRow:
    """now, minute: its counters of these windows; seconds: as long as `now` is."""
    return PathRow(
        *label_of(path),
        path["open"],
        upgrades(now) / seconds if now else None,
        path["upgrades"]["accepted"],
        refused(minute) if minute else None,
        share(refused(minute), upgrades(minute)) if minute else None,
        refused(path),
        path["ping_timeouts"],
    )


def _close_rows(status: Json) -> Iterator[CloseRow]:
    minute = status["minute"]
    for side, codes in CLOSES.items():
        for code, words in codes.items():
            if number := _closes(status, side, code):
                yield CloseRow(words, code, side, _closes(minute, side, code) if minute else None, number)


def _closes(status_or_window: Json, side: str, code: str) -> int:
    number: int = sum(each["closes"][side][code] for each in status_or_window["websocket"])
    return number
