"""flashpol top: what a running server does, redrawn in the terminal."""

import argparse
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from flashpol.admin.rtmpt import IRREGULAR
from flashpol.admin.rtmpt import total as rtmpt_total
from flashpol.admin.tls import HANDSHAKE_FAILURES, failed
from flashpol.admin.websocket import REFUSALS, label_of, refused, total, upgrades
from flashpol.cli import terminal
from flashpol.cli.status import (
    Json,
    add_admin,
    admin_address,
    certificate_lines,
    fetch,
    origin_lines,
    parse,
    problem_lines,
    readable,
    table,
)
from flashpol.config import ConfigError, UpstreamAddress

DESCRIPTION = """Show what a running server does, once a second until Ctrl-C: rates per second, open connections,
sessions, refusals by reason, listeners, upstreams, WebSocket, RTMPT, TLS, workers and problems. Rates are means of the
last five seconds or so, taken from /-/status of the admin address. Without a terminal each view follows the one before
it, after an empty line."""

# The other screen of the terminal, without a cursor; and back.
OPEN, CLOSE = "\033[?1049h\033[?25l", "\033[?25h\033[?1049l"
# To the upper left corner; clear to the end of the line, and of the screen.
HOME, END_OF_LINE, END_OF_SCREEN = "\033[H", "\033[K", "\033[J"
INTERVALS = 0.1, 3600.0  # seconds


def add_to(commands: Any) -> None:
    parser = commands.add_parser("top", help="show live what a running server does", description=DESCRIPTION)
    add_admin(parser)
    parser.add_argument(
        "--interval", metavar="SECONDS", type=_seconds, default=1.0, help="redraw every SECONDS (default 1)"
    )
    parser.add_argument("--once", action="store_true", help="print one view and exit")
    parser.set_defaults(run=run)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if INTERVALS[0] <= float(text) <= INTERVALS[1]:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {INTERVALS[0]:g} to {INTERVALS[1]:g}")


def run(options: argparse.Namespace) -> int:
    address = admin_address(options)
    lines = _look(address)
    if options.once:
        print(terminal.encodable("\n".join(lines)))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is restored then too
    live = sys.stdout.isatty()
    try:
        if live:
            print(OPEN, end="")
        while True:
            print(_screen(lines) if live else "\n".join(lines) + "\n", flush=True, end="" if live else "\n")
            time.sleep(options.interval)
            try:
                lines = _look(address)
            except ConfigError as error:  # it restarts, perhaps
                lines = [str(error), "", "trying again; Ctrl-C ends"]
    except KeyboardInterrupt:
        return 0
    finally:
        if live:
            print(CLOSE, end="", flush=True)


def _look(address: UpstreamAddress) -> list[str]:
    """The lines of one view. Raises ConfigError."""
    body = fetch(address)
    with readable(address):
        lines = [*view(parse(body), str(address))]
    # No control character may reach the terminal.
    return [terminal.encodable("".join(c if c.isprintable() else "?" for c in line)) for line in lines]


def _screen(lines: list[str]) -> str:
    """The escape sequences that draw `lines` over the view before. What does not fit is cut off."""
    columns, rows = shutil.get_terminal_size()
    if len(lines) > rows:
        lines = [*lines[: rows - 1], f"({len(lines) - rows + 1} more lines)"]
    return HOME + "\r\n".join(line[:columns] + END_OF_LINE for line in lines) + END_OF_SCREEN


def view(status: Json, address: str) -> Iterator[str]:
    """The lines of one view. Rates are "-" while the server has no earlier sample."""
    total, window, workers = status["total"], status["now"] or {}, status["workers"]
    seconds = window.get("seconds", 0.0)

    def rate(count: float | None) -> str:
        return f"{count / seconds:,.1f}" if seconds and count is not None else "-"

    at = time.strftime("%H:%M:%S", time.localtime(status["time"]))
    up = sum(worker["up"] for worker in workers)
    yield f"flashpol {status['version']} at {address}, {at}: {status['state']}, {up} of {len(workers)} workers up"
    refused = window.get("refused", {})
    yield (
        f"per second: {rate(window.get('accepted'))} accepted, {rate(window.get('replies'))} replies, "
        f"{rate(window.get('relayed'))} relayed, {rate(sum(refused.values()) if window else None)} refused, "
        f"{rate(window.get('timeouts'))} timed out"
    )
    yield (
        f"now: {total['open']:,} open, {total['sessions']:,} sessions, {total['slow_replies']:,} slow replies, "
        f"{status['draining_workers']:,} draining workers"
    )
    yield ""
    yield from problem_lines(status["problems"])
    yield ""
    reasons = [[name, "", rate(refused.get(name)), f"{count:,}"] for name, count in total["refused"].items() if count]
    if reasons:
        yield from table(("REFUSED", "", "PER SECOND", "TOTAL"), reasons)
        yield ""
    replies = window.get("listeners", {})
    yield from table(
        ("LISTENER", "ADDRESS", "REPLIES/S", "OPEN", "SESSIONS", "QUEUE"),
        [
            [
                each["name"],
                each["address"],
                rate(replies.get(each["name"])),
                f"{each['open']:,}",
                f"{each['sessions']:,}",
                f"{each['accept_queue']['length']:,}/{each['accept_queue']['limit']:,}",
            ]
            for each in status["listeners"]
        ],
    )
    yield ""
    if status["upstreams"]:
        started = {(each["listener"], each["upstream"]): each for each in window.get("upstreams", [])}
        rows = []
        for each in status["upstreams"]:
            recent = started.get((each["listener"], each["upstream"]), {})
            failed = sum(recent["failures"].values()) if recent else None
            numbers = [rate(recent.get("started")), f"{each['open']:,}", f"{each['connecting']:,}", rate(failed)]
            rows.append([each["listener"], each["upstream"], *numbers])
        yield from table(("LISTENER", "UPSTREAM", "SESSIONS/S", "OPEN", "CONNECTING", "FAILURES/S"), rows)
        yield ""
    yield from _websocket_lines(status, rate)
    yield from _rtmpt_lines(status, rate)
    yield from _tls_lines(status, rate)
    cpu = window.get("workers", {})
    yield from table(
        ("WORKER", "PID", "CPU", "MEMORY", "LAG", "RESTARTS"),
        [
            [
                f"{each['slot']}{'' if each['up'] else ' (down)'}",
                str(each["pid"] or "-"),
                f"{cpu[pid] / seconds:.0%}" if seconds and (pid := str(each["pid"])) in cpu else "-",
                "-" if each["resident_bytes"] is None else f"{each['resident_bytes'] / 1e6:,.1f} MB",
                f"{each['lag_seconds'] * 1e3:,.1f} ms",
                f"{each['restarts']:,}",
            ]
            for each in workers
        ],
    )


def _websocket_lines(status: Json, rate: Callable[[float | None], str]) -> Iterator[str]:
    """Tables of WebSocket and the origins refused last, each with an empty line after it; nothing without a path."""
    if not status["websocket"]:
        return
    window = status["now"]
    recent = {label_of(each): each for each in window["websocket"]} if window else {}
    rows = []
    for each in status["websocket"]:
        counted = recent.get(label_of(each))
        numbers = [f"{each['open']:,}", rate(upgrades(counted) if counted else None)]
        rows.append([each["path"], each["listener"], *numbers, rate(refused(counted) if counted else None)])
    yield from table(("WEBSOCKET PATH", "LISTENER", "OPEN", "REQUESTS/S", "REFUSED/S"), rows)
    now, since_start = total(window, "upgrades") if window else {}, total(status, "upgrades")
    results = [
        [name, each.advice, rate(now.get(name)), f"{since_start[name]:,}"]
        for name, each in REFUSALS.items()
        if since_start[name]
    ]
    if results:
        yield ""
        yield from table(("REFUSED UPGRADES", "WHAT TO DO", "PER SECOND", "TOTAL"), results)
    yield from origin_lines(status)
    yield ""


def _rtmpt_lines(status: Json, rate: Callable[[float | None], str]) -> Iterator[str]:
    """Tables of RTMPT, each with an empty line after it; nothing where no listener has tunnel sessions."""
    if not status["rtmpt"]:
        return
    window = status["now"]
    recent = {each["listener"]: each for each in window["rtmpt"]} if window else {}
    rows = []
    for each in status["rtmpt"]:
        counted = recent.get(each["listener"], {})
        rates = [rate(counted.get(field)) for field in ("sessions", "polls", "forwarded")]
        rows.append([each["listener"], f"{each['open']:,}", f"{each['held']:,}", *rates])
    yield from table(("RTMPT LISTENER", "OPEN", "POLLS HELD", "SESSIONS/S", "POLLS/S", "FORWARDED/S"), rows)
    irregular = [
        [name, each.advice, rate(rtmpt_total(window, name) if window else None), f"{number:,}"]
        for name, each in IRREGULAR.items()
        if (number := rtmpt_total(status, name))
    ]
    if irregular:
        yield ""
        yield from table(("IRREGULAR REQUESTS", "WHAT TO DO", "PER SECOND", "TOTAL"), irregular)
    yield ""


def _tls_lines(status: Json, rate: Callable[[float | None], str]) -> Iterator[str]:
    """Tables of TLS, each with an empty line after it; nothing where no listener speaks TLS."""
    shown = [each for each in status["listeners"] if each["certificates"]]
    if not shown:
        return
    recent = {each["listener"]: each for each in (status["now"] or {}).get("tls_listeners", [])}
    rows = []
    for each in shown:
        window = recent.get(each["name"])
        done = sum(window["handshakes"].values()) if window else None
        numbers = [f"{each['tls']:,}", f"{each['handshaking']:,}", rate(done), rate(failed(window) if window else None)]
        rows.append([each["name"], ", ".join(each["certificates"]), *numbers])
    yield from table(("TLS LISTENER", "CERTIFICATES", "OPEN", "IN HANDSHAKE", "HANDSHAKES/S", "FAILED/S"), rows)
    yield from certificate_lines(status)
    failures = (status["now"] or {}).get("handshake_failures", {})
    reasons = [
        [name, HANDSHAKE_FAILURES[name].advice, rate(failures.get(name)), f"{number:,}"]
        for name, number in status["total"]["handshake_failures"].items()
        if number
    ]
    if reasons:
        yield ""
        yield from table(("FAILED HANDSHAKES", "WHAT TO DO", "PER SECOND", "TOTAL"), reasons)
    yield ""
