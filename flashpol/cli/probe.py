"""flashpol probe: ask policy servers as the clients do, and explain what is wrong."""

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashpol.cli import terminal
from flashpol.cli.arguments import add_clients, add_ignore, port
from flashpol.cli.files import replace
from flashpol.cli.questions import TLS_ONLY_CLIENTS, asked_hosts
from flashpol.config import ConfigError
from flashpol.policy.ports import MASTER_PORT, SILVERLIGHT_HTTP_PORT, SILVERLIGHT_PORT

if TYPE_CHECKING:
    from flashpol.probe.model import Question
    from flashpol.probe.report import Result

DESCRIPTION = """Ask the policy server of HOST as Flash Player, Lightspark, Unity and Silverlight do, and report what is
wrong, the evidence, and what to do. With --tls ask inside TLS, as SecureSocket does, and judge the certificate and the
versions too. With --websocket ask for a WebSocket instead, as the browser of a page with Ruffle does. With --rtmp try
the ways to the media server of HOST in the order of Flash Player, and say how long its fallback takes. The probe opens
a few connections to HOST, or to the proxy of --proxy, and contacts no other host. Exit status: 0 no errors, 1 errors, 2
wrong arguments; with --nagios 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. docs/probe.md explains the findings."""

# Hosts that are probed concurrently.
MAX_CONCURRENT_HOSTS = 8
_UNKNOWN = 3


def add_to(commands: Any) -> None:
    parser = commands.add_parser("probe", help="explain why clients do not connect", description=DESCRIPTION)
    add = parser.add_argument
    add("hosts", metavar="HOST", nargs="*", help="name or address of the host that the content connects to")
    add(
        "--port",
        metavar="N",
        type=port,
        help="port that the content connects to; it is asked for a policy, as clients do",
    )
    add(
        "--from",
        dest="content",
        metavar="URL",
        help="URL or domain of the content: decide whether it may connect (needs --port)",
    )
    add("--location", metavar="URL", help="port that the content names with loadPolicyFile, as xmlsocket://HOST:PORT")
    add(
        "--tls",
        action="store_true",
        help="ask inside TLS, as SecureSocket does, and judge the handshake and the certificate",
    )
    add("--server-name", metavar="NAME", help="with --tls: name that the content connects to (default HOST)")
    add(
        "--ca",
        metavar="FILE",
        type=Path,
        help="with --tls, wss:// or rtmps://: CA certificates in PEM that clients trust besides those of this machine",
    )
    add(
        "--websocket",
        metavar="URL",
        help="instead of HOST: ask for a WebSocket at ws://HOST:PORT/PATH or wss://HOST:PORT/PATH as Ruffle's browser"
        " does",
    )
    add(
        "--origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="with --websocket: origin or URL of the page that has Ruffle, may be repeated (default https://HOST, or"
        " http://HOST for ws://)",
    )
    add(
        "--rtmp",
        metavar="APP",
        nargs="?",
        const="",
        help="try the ways to a media server: RTMP on 1935, 443 and 80, then RTMPT on 80; HOST:PORT or a URL with rtmp,"
        " rtmpt, rtmps or rtmpts and a port is one attempt; with APP connect to this application too",
    )
    add(
        "--proxy",
        metavar="URL",
        help="with --rtmp: ask RTMPT only, through this proxy of HTTP, as http://HOST:PORT",
    )
    add_clients(parser, "client that matters", default="all", more=TLS_ONLY_CLIENTS)
    add(
        "--thorough",
        action="store_true",
        help="open some thirty connections to each port instead of four, one of them for 15 s",
    )
    add_ignore(parser)
    add(
        "--policy-port", metavar="PORT", type=port, default=MASTER_PORT, help="port to ask instead of 843 (default 843)"
    )
    add(
        "--silverlight-port",
        metavar="PORT",
        type=port,
        default=SILVERLIGHT_PORT,
        help="port to ask instead of 943 (default 943)",
    )
    add(
        "--http-port",
        metavar="PORT",
        type=port,
        default=SILVERLIGHT_HTTP_PORT,
        help="port to ask instead of 80, where Silverlight may ask over HTTP (default 80)",
    )
    add(
        "--watch",
        metavar="SECONDS",
        type=seconds,
        help="probe again every SECONDS and print what changed, until Ctrl-C",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write JSON, described in docs/reference.md")
    form.add_argument("--nagios", action="store_true", help="write one line with performance data, for Nagios")
    form.add_argument("--metrics", action="store_true", help="write metrics for node_exporter's textfile collector")
    add("-o", "--output", metavar="OUT", type=Path, help="output file, replaced atomically (default standard output)")
    parser.set_defaults(run=run)


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 86400")
    return value


def run(options: argparse.Namespace) -> int:
    from flashpol.probe.report import nagios

    try:
        asked = asked_hosts(options)
        if options.watch:
            return _watch(options, asked)
        results = _probe_all(asked)
        _write(options, _formatted(options, results))
    except ConfigError as error:
        if not options.nagios:
            raise
        print(nagios.unknown(str(error)))
        return _UNKNOWN
    return nagios.status(results) if options.nagios else int(any(result.failed for result in results))


def _probe_all(asked: "Sequence[tuple[str, Question]]") -> "list[Result]":
    from flashpol.probe.experiments import observe
    from flashpol.probe.report import Result

    progress = _Progress(len(asked))

    def probe(one: "tuple[str, Question]") -> Result:
        result = Result.of(observe(*one))
        progress.done(result)
        return result

    with progress:
        pool = ThreadPoolExecutor(MAX_CONCURRENT_HOSTS)
        try:
            return list(pool.map(probe, asked))
        except KeyboardInterrupt:
            # The interpreter would wait for all threads, and each of them for its open connections: up to 15 s.
            sys.stdout.flush()
            os._exit(130)
        finally:
            pool.shutdown(wait=False)


class _Progress:
    """The progress line for several hosts, on a terminal; on standard error, so that it is not part of the output."""

    def __init__(self, hosts: int) -> None:
        self._hosts, self._done, self._failed = hosts, 0, 0
        self._wanted = hosts > 1 and sys.stderr.isatty()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._show()

    def __exit__(self, *_: object) -> None:
        if self._wanted:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def done(self, result: "Result") -> None:
        with self._lock:
            self._done += 1
            self._failed += result.failed
            self._show()

    def _show(self) -> None:
        if self._wanted:
            sys.stderr.write(f"\r\033[K{self._done} of {self._hosts} hosts, {self._failed} with errors")
            sys.stderr.flush()


def _formatted(options: argparse.Namespace, results: "Sequence[Result]") -> str:
    from flashpol.probe.report import counted, document, nagios, text, title

    if options.json:
        import json

        return json.dumps(document.document(results), indent=None if options.watch else 2) + "\n"
    if options.nagios:
        return nagios.line(results) + "\n"
    if options.metrics:
        from flashpol.probe.report import metrics  # and with it prometheus_client, 40 ms

        return metrics.exposition(results)
    paint = terminal.painter() if options.output is None else uncoloured
    columns = terminal.columns() if options.output is None else None
    parts = [text.report(result, paint, columns) for result in results]
    if len(results) > 1:
        parts.append(f"{counted(len(results), 'host')}: {title(results)}")
    return "\n\n".join(parts) + "\n"


def uncoloured(text: str, _: str) -> str:
    return text


def _write(options: argparse.Namespace, text: str) -> None:
    if options.output is not None:
        replace(options.output, text.encode())
        return
    sys.stdout.write(terminal.encodable(text))
    sys.stdout.flush()


def _watch(options: argparse.Namespace, asked: "Sequence[tuple[str, Question]]") -> int:
    """Probe until Ctrl-C: the full report first, then changes; JSON as lines; a file is rewritten each time."""
    from flashpol.probe.report.changes import changes
    from flashpol.probe.report.text import clean

    if options.nagios:
        raise ConfigError("--watch cannot be used with --nagios, which itself runs the check repeatedly")
    if not any(map(os.isatty, range(3))):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # `pkill -HUP flashpol` means the server
    before: list[Result] = []
    while True:
        began = time.monotonic()
        results = _probe_all(asked)
        differ = [(now, changes(then, now)) for then, now in zip(before, results, strict=bool(before))]
        changed = any(lines for _, lines in differ)
        if not before or options.output is not None or options.metrics or (options.json and changed):
            _write(options, _formatted(options, results))
        elif changed:
            at = time.strftime("%Y-%m-%d %H:%M:%S")
            _write(options, "".join(f"{at} {clean(now.host)}: {line}\n" for now, lines in differ for line in lines))
        before = results
        time.sleep(max(0.0, options.watch - (time.monotonic() - began)))
