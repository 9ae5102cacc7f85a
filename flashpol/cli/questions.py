"""The questions that the arguments of `flashpol probe` mean, one for each host, or the error in these arguments."""

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from flashpol.cli.arguments import ALL, clients, ignored_codes
from flashpol.config import ConfigError
from flashpol.policy.findings import CLIENTS

if TYPE_CHECKING:
    from flashpol.probe.model import Question

_LOCATION = re.compile(r"xmlsocket://(\[[0-9A-Fa-f:.]+\]|[^/:\[\]]+):([0-9]{1,5})/?")
_HOST_NAME = re.compile(r"(?!.{254})(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9])?\.?")
# Clients that only --tls knows: they connect inside TLS, and ask for no policy (probe/tls/offers.py).
TLS_ONLY_CLIENTS = ("air", "browser")


def asked_hosts(options: argparse.Namespace) -> "list[tuple[str, Question]]":
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
        if re.match(r"rtmp[a-z]*://", host, re.IGNORECASE):
            raise ConfigError(f"{host!r} is a media server's address: add --rtmp, without which a policy is asked for")
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
        except ValueError as error:
            raise ConfigError(f"--rtmp {host!r}: {error}") from None
        if options.proxy is not None:
            try:
                place = place._replace(proxy=url.parse_proxy(options.proxy))
            except ValueError as error:
                raise ConfigError(f"--proxy {options.proxy!r}: {error}") from None
        if place.proxy is not None and not (place.ways and all(way.scheme == url.RTMPT for way in place.ways)):
            wanted = re.sub(r"^[^/]*://", "", host)
            raise ConfigError(f"--proxy carries RTMPT: write rtmpt://{wanted} instead of {host}")
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
