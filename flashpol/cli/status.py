"""flashpol status: what a running server does, and what is wrong with it."""

import argparse
import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

from flashpol.admin.rtmpt import IRREGULAR
from flashpol.admin.rtmpt import total as rtmpt_total
from flashpol.admin.tls import HANDSHAKE_FAILURES, failed, shown_names, time_left
from flashpol.admin.websocket import REFUSALS, refused, total
from flashpol.cli import terminal
from flashpol.config import DEFAULT_ADMIN, ConfigError, UpstreamAddress

DESCRIPTION = """Print a summary of a running server, which it takes from /-/status of the admin address: state, last
reload, workers, listeners with their rates, WebSocket paths, RTMPT, TLS with its certificates, and problems. Exit
status: 0 ready and no errors, 1 not ready or a problem that is an error, 2 no reply."""

FORMAT = 2  # of /-/status
TIMEOUT = 5.0  # seconds; the admin process answers within milliseconds

Json = dict[str, Any]


def add_to(commands: Any) -> None:
    parser = commands.add_parser("status", help="print what a running server does", description=DESCRIPTION)
    add_admin(parser)
    parser.add_argument("--json", action="store_true", help="print the JSON of /-/status, in a stable format")
    parser.set_defaults(run=run)


def add_admin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin",
        metavar="IP:PORT",
        default=DEFAULT_ADMIN,
        help=f"admin address of the server, a host name is accepted too (default {DEFAULT_ADMIN})",
    )


def admin_address(options: argparse.Namespace) -> UpstreamAddress:
    """The address of --admin, which may be written as a URL. Raises ConfigError."""
    try:
        address = UpstreamAddress.parse(re.sub(r"^http://|/.*$", "", options.admin))
    except ConfigError:
        address = UpstreamAddress("", 0)
    if not address.port:
        raise ConfigError(f"--admin {options.admin!r}: write IP:PORT, such as {DEFAULT_ADMIN}")
    return address


def run(options: argparse.Namespace) -> int:
    address = admin_address(options)
    body = fetch(address)
    with readable(address):
        status = parse(body)
        text = body.decode().rstrip() if options.json else "\n".join(summary(status))
        well = status["state"] == "ready" and not any(each["severity"] == "error" for each in status["problems"])
    print(terminal.encodable(text))
    return int(not well)


@contextlib.contextmanager
def readable(address: UpstreamAddress) -> Iterator[None]:
    """Turns what a document without the expected fields raises into a ConfigError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"{address}: /-/status is not that of this version of flashpol ({type(error).__name__}: {error})"
        raise ConfigError(message) from None


def parse(body: bytes) -> Json:
    """The document; call it within `readable`."""
    status: Json = json.loads(body)
    if status["format"] != FORMAT:
        raise ValueError(f"format {status['format']}")
    return status


def fetch(address: UpstreamAddress) -> bytes:
    """The body of /-/status. Raises ConfigError."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/-/status")
            response = connection.getresponse()
            body = response.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{address}: {reason}: is a server running, and is this its admin address?") from None
    except http.client.HTTPException as error:
        raise ConfigError(f"{address}: is not an admin address: {error or type(error).__name__}") from None
    if response.status != http.client.OK:
        raise ConfigError(f"{address}: is not an admin address: HTTP status {response.status}")
    return body


def summary(status: Json) -> Iterator[str]:
    """The lines for people."""
    workers, window = status["workers"], status["now"]
    up = sum(worker["up"] for worker in workers)
    yield f"flashpol {status['version']}: {status['state']}, {up} of {len(workers)} workers up"
    if draining := status["draining_workers"]:
        what = "worker of an earlier configuration is" if draining == 1 else "workers of earlier configurations are"
        yield f"{draining} {what} draining"
    if timestamp := status["reload"]["timestamp"]:
        loaded = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(timestamp))
        yield f"configuration loaded at {loaded}"
    yield ""
    yield from table(
        ("LISTENER", "ADDRESS", "REPLIES", "PER SECOND", "REFUSED", "OPEN", "QUEUE"),
        [_row(listener, window) for listener in status["listeners"]],
    )
    if status["upstreams"]:
        yield ""
        yield from table(
            ("LISTENER", "UPSTREAM", "SESSIONS", "OPEN", "CONNECTING", "FAILURES"),
            [_upstream(upstream) for upstream in status["upstreams"]],
        )
    yield from _websocket_paths(status)
    yield from _rtmpt_listeners(status)
    yield from _tls_listeners(status["listeners"])
    yield from certificate_lines(status)
    yield from _failure_lines(status["total"]["handshake_failures"])
    yield ""
    yield from problem_lines(status["problems"])


def problem_lines(problems: Sequence[Json]) -> Iterator[str]:
    yield f"{len(problems)} problem{'s' if len(problems) != 1 else ''}{':' if problems else ''}"
    yield from (f"  {problem['severity']}: {problem['message']}" for problem in problems)


def _row(listener: Json, window: Json | None) -> list[str]:
    queue = listener["accept_queue"]
    rate = f"{window['listeners'][listener['name']] / window['seconds']:.1f}" if window and window["seconds"] else "-"
    return [
        listener["name"],
        listener["address"],
        f"{listener['replies']:,}",
        rate,
        f"{sum(listener['refused'].values()):,}",
        f"{listener['open']:,}",
        f"{queue['length']:,}/{queue['limit']:,}",
    ]


def _rtmpt_listeners(status: Json) -> Iterator[str]:
    """Tunnel sessions by listener, and requests that went wrong; nothing without a listener that has them."""
    if not status["rtmpt"]:
        return
    yield ""
    yield from table(
        ("RTMPT LISTENER", "SESSIONS", "OPEN", "GHOSTS", "POLLS HELD", "FORWARDED"),
        [
            [
                each["listener"],
                f"{each['sessions']:,}",
                f"{each['open']:,}",
                f"{each['ends']['ghost']:,}",
                f"{each['held']:,}",
                f"{each['forwarded']:,}",
            ]
            for each in status["rtmpt"]
        ],
    )
    irregular = [
        [name, each.advice, f"{number:,}"] for name, each in IRREGULAR.items() if (number := rtmpt_total(status, name))
    ]
    if irregular:
        yield ""
        yield from table(("IRREGULAR REQUESTS", "WHAT TO DO", "TOTAL"), irregular)


def _websocket_paths(status: Json) -> Iterator[str]:
    """Paths, why upgrades were refused and what to do, and the origins refused last; nothing without a path."""
    if not status["websocket"]:
        return
    yield ""
    yield from table(
        ("WEBSOCKET PATH", "LISTENER", "OPEN", "ACCEPTED", "REFUSED", "PINGS LOST"),
        [
            [
                each["path"],
                each["listener"],
                f"{each['open']:,}",
                f"{each['upgrades']['accepted']:,}",
                f"{refused(each):,}",
                f"{each['ping_timeouts']:,}",
            ]
            for each in status["websocket"]
        ],
    )
    results = total(status, "upgrades")
    rows = [[name, each.advice, f"{results[name]:,}"] for name, each in REFUSALS.items() if results[name]]
    if rows:
        yield ""
        yield from table(("REFUSED UPGRADES", "WHAT TO DO", "TOTAL"), rows)
    yield from origin_lines(status)


def origin_lines(status: Json) -> Iterator[str]:
    """An empty line, and the last origins that each WebSocket path refused; nothing if there are none."""
    lines = [
        f"  {path['path']} of {path['listener']}, {each['times']:,} time{'s' if each['times'] != 1 else ''}, "
        f"last {time_left(each['time'], status['time'])}: {each['reason']}"
        for path in status["websocket"]
        for each in path["refused_origins"]
    ]
    if lines:
        yield from ("", "origins refused last:", *lines)


def _tls_listeners(listeners: Sequence[Json]) -> Iterator[str]:
    """Those that speak TLS, with a column for each version that clients use."""
    shown = [each for each in listeners if each["certificates"]]
    if not shown:
        return
    versions = [version for version in shown[0]["handshakes"] if any(each["handshakes"][version] for each in shown)]
    yield ""
    yield from table(
        ("TLS LISTENER", "CERTIFICATES", "OPEN", "HANDSHAKES", *versions, "RESUMED", "FAILED"),
        [
            [
                each["name"],
                ", ".join(each["certificates"]),
                f"{each['tls']:,}",
                f"{sum(each['handshakes'].values()):,}",
                *(f"{each['handshakes'][version]:,}" for version in versions),
                f"{each['resumed']:,}",
                f"{failed(each):,}",
            ]
            for each in shown
        ],
    )


def certificate_lines(status: Json) -> Iterator[str]:
    """An empty line and a table; nothing without a certificate."""
    if not status["certificates"]:
        return
    yield ""
    yield from table(
        ("CERTIFICATE", "NAMES", "EXPIRES"),
        [
            [each["name"], shown_names(each["names"]) or "-", time_left(each["not_after"], status["time"])]
            for each in status["certificates"]
        ],
    )


def _failure_lines(failures: dict[str, int]) -> Iterator[str]:
    """An empty line and a table of the handshakes that failed, with what to do; nothing if there are none."""
    rows = [[name, HANDSHAKE_FAILURES[name].advice, f"{number:,}"] for name, number in failures.items() if number]
    if rows:
        yield ""
        yield from table(("FAILED HANDSHAKES", "WHAT TO DO", "TOTAL"), rows)


def _upstream(upstream: Json) -> list[str]:
    return [
        upstream["listener"],
        upstream["upstream"],
        f"{upstream['started']:,}",
        f"{upstream['open']:,}",
        f"{upstream['connecting']:,}",
        f"{sum(upstream['failures'].values()):,}",
    ]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell; the first two are text, the others numbers."""
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        texts = [cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
        yield "  ".join(texts + numbers)
