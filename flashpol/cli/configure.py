"""The flags that say what to serve, and the configuration that they make together with the file: serve and config."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashpol import config

# Read if no -c, --policy, --allow or --deny-all is given and the file exists.
DEFAULT_CONFIG = Path("/etc/flashpol/flashpol.toml")
# The settings of [server] that have a flag.
FLAGS = ("workers", "admin", "user", "watch", "log_format", "log_file", "access_log")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `configure` reads."""
    add = parser.add_argument
    add(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help="configuration file (TOML); the flags below override it "
        f"(default {DEFAULT_CONFIG} if it exists and none of --policy, --allow and --deny-all is given)",
    )
    add(
        "--listen",
        metavar="IP:PORT",
        action="append",
        default=[],
        help="address to listen on, may be repeated; [::] serves IPv4 too, port 0 lets the kernel choose, systemd:NAME "
        f"takes a socket from systemd (default {config.DEFAULT_LISTEN}, with --dialect silverlight "
        f"{config.DEFAULT_SILVERLIGHT_LISTEN})",
    )
    policy = parser.add_mutually_exclusive_group()
    policy.add_argument(
        "--policy", metavar="PATH", type=Path, help="policy file to serve, or a folder whose *.xml files are merged"
    )
    policy.add_argument(
        "--allow",
        metavar="DOMAIN:PORTS",
        action="append",
        default=[],
        help="serve a policy with this grant, such as '*.example.com:1935,8000-8100'; may be repeated",
    )
    policy.add_argument(
        "--deny-all",
        action="store_true",
        help="serve a policy that forbids every socket policy of this host, for a host that serves no Flash; not "
        "with -c",
    )
    add("--dialect", metavar="NAME", help="flash or silverlight, for all addresses (default flash)")
    add(
        "--upstream",
        metavar="HOST:PORT",
        help="forward everything that is not a policy request to HOST:PORT or unix:/PATH, from all addresses",
    )
    add(
        "--websocket",
        action="store_true",
        help="accept WebSocket connections too, as Ruffle makes them, on all addresses, at any path, from pages that "
        "the policy allows; they are relayed to --upstream",
    )
    add(
        "--rtmpt",
        action="store_true",
        help="accept RTMP inside HTTP too (RTMPT, and with --tls RTMPTS), on all addresses; it is relayed to "
        "--upstream as plain RTMP",
    )
    add(
        "--tls",
        metavar="CHAIN[,KEY]",
        action="append",
        default=[],
        help="accept TLS too, on all addresses, with the certificate in these PEM files; without KEY its key is in "
        "CHAIN; may be repeated, the first is for clients that ask for no host name",
    )
    add("--workers", metavar="N", help="number of worker processes, or auto: one for each CPU (default auto)")
    add(
        "--admin",
        metavar="IP:PORT",
        help=f"address for metrics, health and the status page, or off (default {config.DEFAULT_ADMIN})",
    )
    add(
        "--user",
        metavar="NAME",
        help="user that the workers run as once the sockets are bound (default: the user that starts flashpol)",
    )
    add(
        "--watch",
        metavar="SECONDS",
        help="check files for changes every SECONDS and reload; 0: never, reload by SIGHUP (default 0)",
    )
    add("--log-format", metavar="NAME", help="text or json (default text)")
    add(
        "--log-file",
        metavar="FILE",
        type=os.path.abspath,
        help="append the log to this file, which SIGUSR1 opens again after a rename (default: stderr)",
    )
    add("--access-log", metavar="SHARE", help="share of the connections to log, from 0 to 1 (default 0)")


def config_file(options: argparse.Namespace) -> Path | None:
    """The configuration file to read: the one of -c, or the default one, or none."""
    if options.config is not None or _names_policy(options) or not os.path.exists(DEFAULT_CONFIG):
        given: Path | None = options.config
        return given
    return DEFAULT_CONFIG


def _names_policy(options: argparse.Namespace) -> bool:
    return bool(options.policy or options.allow or options.deny_all)


def configure(options: argparse.Namespace) -> config.Config:
    """The configuration of file and flags; flags override the file. Raises ConfigError."""
    file = config_file(options)
    if options.deny_all and file:
        raise config.ConfigError(f"--deny-all forbids everything, so {file} cannot be served with it: remove one")
    settings = config.load(file) if file else config.Config(config.Server(), (), ())
    given = {
        name: config.type_of(config.Server, name).read_text(f"--{name.replace('_', '-')}", text)
        for name in FLAGS
        if (text := getattr(options, name)) is not None
    }
    locations = {name: location for name, location in settings.server.locations.items() if name not in given}
    server = dataclasses.replace(settings.server, locations=locations, **given)
    policies, listeners = settings.policies, settings.listeners
    dialect = _read(options, "dialect")
    if _names_policy(options):
        policies = (_source(options),)
        listeners = tuple(dataclasses.replace(listener, policy=policies[0].name) for listener in listeners)
    if not policies:
        other = ", or [policies.NAME] here" if file else f", or write {DEFAULT_CONFIG}"
        message = f"no policy: add --policy FILE or --allow DOMAIN:PORTS, as in '*.example.com:1935'{other}"
        raise config.ConfigError(message, file)
    if options.listen or not listeners:
        if len(policies) > 1:
            raise config.ConfigError("--listen with several policies: name one with --policy, or use [[listeners]]")
        default = config.DEFAULT_SILVERLIGHT_LISTEN if dialect == config.SILVERLIGHT else config.DEFAULT_LISTEN
        endpoint = config.type_of(config.Listener, "address")
        addresses = [endpoint.read_text("--listen", text) for text in options.listen or [default]]
        listeners = tuple(config.Listener(None, address, policies[0].name) for address in addresses)
    if dialect is not None:
        listeners = tuple(dataclasses.replace(listener, dialect=dialect) for listener in listeners)
    if options.upstream is not None:
        upstream = _read(options, "upstream")
        listeners = tuple(dataclasses.replace(listener, upstream=upstream) for listener in listeners)
    if options.websocket:
        listeners = tuple(
            dataclasses.replace(listener, websocket=config.EVERY_PATH_TO_UPSTREAM) for listener in listeners
        )
    if options.rtmpt:
        listeners = tuple(dataclasses.replace(listener, rtmpt=True) for listener in listeners)
    certificates = settings.certificates
    if options.tls:
        certificates = _certificates(options.tls)
        names = tuple(certificate.name for certificate in certificates)
        listeners = tuple(dataclasses.replace(listener, tls=names) for listener in listeners)
    return config.check(config.Config(server, policies, listeners, certificates))


def _read(options: argparse.Namespace, name: str) -> Any:
    """The value of a flag that is a setting of listeners; None without the flag."""
    text = getattr(options, name)
    return None if text is None else config.type_of(config.Listener, name).read_text(f"--{name}", text)


def _certificates(given: Sequence[str]) -> tuple[config.CertificateSource, ...]:
    """Those of --tls, which replace all of the file."""
    found = []
    for number, text in enumerate(given, 1):
        names = text.split(",")
        if len(names) > 2 or "" in names:
            message = "write CHAIN or CHAIN,KEY (a file name with a comma needs [certificates.NAME] in a file)"
            raise config.ConfigError(f"--tls {text!r}: {message}")
        files = [config.type_of(config.CertificateSource, "chain").read_text("--tls", name) for name in names]
        found.append(config.CertificateSource(f"from --tls{f' {number}' * (number > 1)}", *files))
    return tuple(found)


def _source(options: argparse.Namespace) -> config.PolicySource:
    if options.allow:
        return config.PolicySource("from --allow", grants=tuple(options.allow))
    if options.deny_all:
        return config.PolicySource("from --deny-all", deny_all=True)
    kind = "folder" if os.path.isdir(options.policy) else "file"
    return config.PolicySource("from --policy", **{kind: options.policy})
