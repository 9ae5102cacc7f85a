"""Figures of RTMPT as the templates show them: tunnel sessions by listener, irregular requests, how sessions ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from flashpol.admin.formatting import share
from flashpol.admin.rtmpt import ENDS, IRREGULAR, Json, ended, total, total_end


@dataclass(frozen=True)
class ListenerRow:
    """polls, forwarded: requests a second; ghosts: since the start; ghosts_lately: of the last minute, with their share
    of the sessions that ended. None: not known yet."""

    listener: str
    open: int
    sessions: int
    polls: float | None
    held: int
    forwarded: float | None
    ghosts: int
    ghosts_lately: int | None
    ghosts_share: float | None
    buffered: int


@dataclass(frozen=True)
class IrregularRow:
    words: str
    advice: str
    name: str
    minute: int | None
    total: int


@dataclass(frozen=True)
class EndRow:
    words: str
    by: str
    minute: int | None
    total: int


@dataclass(frozen=True)
class RtmptFigures:
    listeners: Sequence[ListenerRow]
    irregular: Sequence[IrregularRow]
    ends: Sequence[EndRow]
    open: int


def rtmpt(status: Json) -> RtmptFigures | None:
    """None if no listener has tunnel sessions."""
    if not status["rtmpt"]:
        return None
    now, minute = (_by_listener(status[name]) for name in ("now", "minute"))
    seconds = status["now"]["seconds"] if status["now"] else 0.0
    return RtmptFigures(
        [_row(each, now.get(each["listener"]), minute.get(each["listener"]), seconds) for each in status["rtmpt"]],
        [
            IrregularRow(*each, name, total(status["minute"], name) if status["minute"] else None, number)
            for name, each in IRREGULAR.items()
            if (number := total(status, name))
        ],
        [
            EndRow(words, end, total_end(status["minute"], end) if status["minute"] else None, number)
            for end, words in ENDS.items()
            if (number := total_end(status, end))
        ],
        total(status, "open"),
    )


def _by_listener(window: Json | None) -> dict[str, Json]:
    return {each["listener"]: each for each in window["rtmpt"]} if window else {}


def _row(tunnels: Json, now: Json | None, minute: Json | None, seconds: float) -> ListenerRow:
    """now, minute: its counters of these windows; seconds: as long as `now` is."""
    ghosts = minute["ends"]["ghost"] if minute else None
    return ListenerRow(
        tunnels["listener"],
        tunnels["open"],
        tunnels["sessions"],
        now["polls"] / seconds if now else None,
        tunnels["held"],
        now["forwarded"] / seconds if now else None,
        tunnels["ends"]["ghost"],
        ghosts,
        share(ghosts, ended(minute)) if minute and ghosts is not None else None,
        tunnels["buffered"],
    )
