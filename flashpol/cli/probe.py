"""flashpol probe: ask policy servers as the clients do, and explain what is wrong."""

import argparse
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashpol.cli import terminal
from flashpol.cli.arguments import ALL, add_clients, add_ignore, clients, ignored_codes, port
from flashpol.cli.files import replace
from flashpol.config import ConfigError
from flashpol.policy.findings import CLIENTS
from flashpol.policy.ports import MASTER_PORT, SILVERLIGHT_HTTP_PORT, SILVERLIGHT_PORT

if TYPE_CHECKING:
    from flashpol.probe.model import Question
    from flashpol.probe.report import Result

DESCRIPTION = """Ask the policy server of HOST as Flash Player, Lightspark, Unity and Silverlight do, and report what is
wrong, the evidence, and what to do. With --tls ask inside TLS, as SecureSocket does, and judge the certificate and the
versions too. With --websocket ask for a WebSocket instead, as the browser of a page with Ruffle does. With --rtmp try
the ways to the media server of HOST in the order of Flash Player, and say how long its fallback takes. The probe opens
a few connections to HOST and contacts no other host. Exit status: 0 no errors, 1 errors,
2 wrong arguments; with --nagios 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. docs/probe.md explains the findings."""

# Hosts that are probed concurrently.
MAX_CONCURRENT_HOSTS = 8
_HOST_NAME = re.compile(r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?\.?")
_LOCATION = re.compile(r"xmlsocket://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]]+):([0-9]{1,5})/?")
_UNKNOWN = 3
# Clients that only --tls knows: they connect inside TLS, and ask for no policy (probe/tls/offers.py).
TLS_ONLY_CLIENTS = ("air", "browser")


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
        asked = _asked(options)
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


def _asked(options: argparse.Namespace) -> "list[tuple[str, Question]]":
    """Return the hosts, each with its question. Raises ConfigError."""
    if options.proxy is not None and options.rtmp is None:
        raise ConfigError("--proxy needs --rtmp, which it carries inside HTTP")
    if options.websocket is not None:
        question = _websocket_question(options)
    elif options.rtmp is not None:
        return _rtmp_questions(options)
    else:
        question = _question(options)
    return [(host, question) for host in options.hosts]


def _question(options: argparse.Namespace) -> "Question":
    """Raises ConfigError."""
    from flashpol.policy import PolicyError
    from flashpol.policy.clients.query import Content
    from flashpol.probe.model import Question
    from flashpol.probe.tls.offers import TLS_CLIENTS

    if not options.hosts:
        raise ConfigError("the following arguments are required: HOST, or --websocket URL")
    if options.origin:
        raise ConfigError("--origin needs --websocket; for the content of a policy write --from")
    for host in options.hosts:
        if "://" in host or "/" in host or re.fullmatch(r"[^:]*:[0-9]+", host) or not host.strip():
            raise ConfigError(f"{host!r} is not a host: write only its name or address, and the port with --port")
    options.hosts = [host.removeprefix("[").removesuffix("]") for host in options.hosts]
    if options.content is not None:
        if options.port is None:
            raise ConfigError("--from needs --port: write the port that the content connects to, as in --port 1935")
        try:
            Content.parse(options.content)
        except PolicyError as error:
            raise ConfigError(f"--from: {error}") from None
    _check_tls(options)
    every = TLS_CLIENTS if options.tls else CLIENTS
    named = clients(options, default="all", every=every)
    return Question(
        port=options.port,
        content=options.content,
        location=_location(options),
        named=() if named == every else named,
        thorough=options.thorough,
        policy_port=options.policy_port,
        silverlight_port=options.silverlight_port,
        http_port=options.http_port,
        ignored=_ignored(options.ignore),
        tls=options.tls,
        server_name=None if options.server_name is None else _host_name(options.server_name),
        ca=None if options.ca is None else str(options.ca),
    )


# Options about policies, which --websocket does not ask for.
_NOT_WITH_WEBSOCKET = {
    "hosts": "HOST: the URL has it",
    "port": "--port: the URL has it",
    "content": "--from: write the page's origin with --origin",
    "location": "--location: Ruffle asks for no policy",
    "tls": "--tls: write wss:// for TLS",
    "server_name": "--server-name: browsers send the host of the URL",
    "client": "--client: the client is Ruffle's browser",
    "rtmp": "--rtmp",
}
# Options about policies and WebSockets, which --rtmp does not ask for.
_NOT_WITH_RTMP = {
    "port": "--port: write HOST:PORT",
    "content": "--from: media servers have no policy",
    "location": "--location: media servers have no policy",
    "tls": "--tls: write rtmps://HOST",
    "server_name": "--server-name: clients send the host",
    "client": "--client: the ways are those of Flash Player",
    "origin": "--origin: media servers are not asked by a page",
    "thorough": "--thorough: everything is tried anyway",
}


def _websocket_question(options: argparse.Namespace) -> "Question":
    """Raises ConfigError."""
    from flashpol.probe.websocket import prober, url

    for name, what in _NOT_WITH_WEBSOCKET.items():
        if getattr(options, name) not in (None, False, []):
            raise ConfigError(f"--websocket is given, so leave out {what}")
    try:
        place = url.parse(options.websocket)
    except ValueError as error:
        raise ConfigError(f"--websocket {options.websocket!r}: {error}") from None
    origins = []
    for page in options.origin:
        try:
            origins.append(url.origin_of(page))
        except ValueError as error:
            raise ConfigError(f"--origin {page!r}: {error}") from None
    if options.ca is not None and not place.secure:
        raise ConfigError("--ca needs a URL with wss://, which asks inside TLS")
    _check_ca(options)
    options.hosts = [place.host]
    return prober.question(
        place,
        origins,
        thorough=options.thorough,
        ignored=_ignored(options.ignore),
        ca=None if options.ca is None else str(options.ca),
    )


def _rtmp_questions(options: argparse.Namespace) -> "list[tuple[str, Question]]":
    """Raises ConfigError."""
    from flashpol.probe.rtmp import prober, url

    for name, what in _NOT_WITH_RTMP.items():
        if getattr(options, name):
            raise ConfigError(f"--rtmp is given, so leave out {what}")
    if not options.hosts:
        named = f"; {options.rtmp!r} counts as the application, so write HOST first" if options.rtmp else ""
        raise ConfigError(f"the following arguments are required: HOST{named}")
    places = []
    for host in options.hosts:
        try:
            place = url.parse(host, options.rtmp)
            if options.proxy is not None:
                place = place._replace(proxy=url.parse_proxy(options.proxy))
        except ValueError as error:
            raise ConfigError(f"--rtmp {host!r}: {error}") from None
        if place.proxy is not None and not (place.ways and all(way.scheme == url.RTMPT for way in place.ways)):
            raise ConfigError(f"--proxy carries RTMPT: write rtmpt:// instead of {place.scheme}://")
        if options.ca is not None and not any(way.secure for way in place.ways):
            raise ConfigError("--ca needs rtmps:// or rtmpts://, which ask inside TLS")
        places.append(place)
    _check_ca(options)
    ca = None if options.ca is None else str(options.ca)
    ignored = _ignored(options.ignore)
    return [(place.host, prober.question(place, ignored=ignored, ca=ca)) for place in places]


def _check_tls(options: argparse.Namespace) -> None:
    """Raises ConfigError if the options about TLS contradict each other or the others."""
    named = options.client or []
    for flag, given in (("--server-name", options.server_name), ("--ca", options.ca)):
        if given is not None and not options.tls:
            raise ConfigError(f"{flag} needs --tls, which asks inside TLS")
    for client in named:
        if not options.tls and client in TLS_ONLY_CLIENTS:
            raise ConfigError(f"--client {client} needs --tls: this client asks for no policy, and only connects")
        if options.tls and client not in ("flash", *TLS_ONLY_CLIENTS, ALL):
            known = ("flash", *TLS_ONLY_CLIENTS)
            raise ConfigError(f"--client {client} has no TLS: with --tls write {', '.join(known)} or {ALL}")
    if named and set(named) <= set(TLS_ONLY_CLIENTS) and options.port is None:
        raise ConfigError(f"--client {named[0]} needs --port: it connects to that port, and asks no other")
    _check_ca(options)


def _check_ca(options: argparse.Namespace) -> None:
    """Raises ConfigError if there is no CA certificate in the file of --ca."""
    if options.ca is not None:
        from flashpol.probe.tls.channel import check_ca

        if why := check_ca(str(options.ca)):
            raise ConfigError(f"--ca {options.ca}: {why}")


def _host_name(text: str) -> str:
    """Return a host name as DNS has it. Raises ConfigError."""
    with suppress(UnicodeError):
        name = text.encode("idna").decode().lower()
        if _HOST_NAME.fullmatch(name):
            return name
    raise ConfigError(f"--server-name {text!r} is not a host name")


def _ignored(codes: Sequence[str]) -> frozenset[str]:
    if not codes:
        return frozenset()
    from flashpol.policy.rules import RULES as POLICY_RULES
    from flashpol.probe.findings import RULES

    known = {rule.code for rule in RULES} | {rule.code for rule in POLICY_RULES}
    return ignored_codes(codes, known, "docs/probe.md and docs/rules.md list")


def _location(options: argparse.Namespace) -> int | None:
    """Return the port of --location. Flash accepts a policy only from its own host, so no other host is contacted."""
    if options.location is None:
        return None
    match = _LOCATION.fullmatch(options.location)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise ConfigError(f"--location {options.location!r}: write xmlsocket://HOST:PORT")
    host = match[1].removeprefix("[").removesuffix("]")
    if any(host.lower() != other.lower() for other in options.hosts):
        raise ConfigError(
            f"--location names {host}: a policy counts only for the host that serves it, so probe that host"
        )
    return int(match[2])


def _probe_all(asked: "Sequence[tuple[str, Question]]") -> "list[Result]":
    from flashpol.probe.experiments import observe
    from flashpol.probe.report import Result

    progress = _Progress(len(asked))

    def probe(one: tuple[str, Question]) -> Result:
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
