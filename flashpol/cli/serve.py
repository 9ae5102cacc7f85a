"""flashpol serve: answer policy requests."""

import argparse
import contextlib
import dataclasses
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashpol import config
from flashpol.version import VERSION

if TYPE_CHECKING:
    from flashpol.supervisor.generation import Generation

DESCRIPTION = """Answer Flash socket policy requests, until SIGTERM or Ctrl-C; those inside are finished first."""

# The settings of [server] that have a flag.
FLAGS = ("workers", "admin", "user", "watch", "log_format", "access_log")


def add_to(commands: Any) -> None:
    parser = commands.add_parser("serve", help="answer policy requests", description=DESCRIPTION)
    add_flags(parser)
    parser.set_defaults(run=run)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What says what is to be served: `configure` reads it."""
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", type=Path, help="configuration file (TOML); the flags below override it")
    add(
        "--listen",
        metavar="IP:PORT",
        action="append",
        default=[],
        help=f"address to serve, may be repeated; [::] is IPv4 too, port 0 is any; or systemd:NAME "
        f"(default {config.DEFAULT_LISTEN}, with --dialect silverlight {config.DEFAULT_SILVERLIGHT_LISTEN})",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--policy", metavar="PATH", type=Path, help="serve this policy file, or the merge of a folder's *.xml"
    )
    what.add_argument(
        "--allow",
        metavar="DOMAIN:PORTS",
        action="append",
        default=[],
        help="serve a policy that grants this, e.g. '*.example.com:1935,8000-8100'; may be repeated",
    )
    add("--dialect", metavar="NAME", help="flash or silverlight, for all addresses (default flash)")
    add(
        "--upstream",
        metavar="HOST:PORT",
        help="relay what is no policy request there, or to unix:/PATH, from all addresses",
    )
    add("--workers", metavar="N", help="worker processes, or auto: one for each CPU (default auto)")
    add("--admin", metavar="IP:PORT", help=f"metrics and health, or off (default {config.DEFAULT_ADMIN})")
    add("--user", metavar="NAME", help="become this user once the addresses are bound")
    add("--watch", metavar="SECONDS", help="look for changed files as often as this; 0: SIGHUP says when (default 0)")
    add("--log-format", metavar="NAME", help="text or json (default text)")
    add("--access-log", metavar="SHARE", help="share of the connections, from 0 to 1, that are logged (default 0)")


def configure(options: argparse.Namespace) -> config.Config:
    """The file, with the flags over it. Raises ConfigError."""
    settings = config.load(options.config) if options.config else config.Config(config.Server(), (), ())
    given = {
        name: config.kind_of(config.Server, name).read_text(f"--{name.replace('_', '-')}", text)
        for name in FLAGS
        if (text := getattr(options, name)) is not None
    }
    places = {name: place for name, place in settings.server.places.items() if name not in given}
    server = dataclasses.replace(settings.server, places=places, **given)
    policies, listeners = settings.policies, settings.listeners
    dialect = config.parse_dialect(options.dialect) if options.dialect is not None else None
    if options.policy or options.allow:
        policies = (_source(options),)
        listeners = tuple(dataclasses.replace(listener, policy=policies[0].name) for listener in listeners)
    if not policies:
        home = ", or [policies.NAME] here" if options.config else ""
        what = f"no policy: add --policy FILE or --allow DOMAIN:PORTS, as in '*.example.com:1935'{home}"
        raise config.ConfigError(what, options.config)
    if options.listen or not listeners:
        if len(policies) > 1:
            raise config.ConfigError("--listen with several policies: say which with --policy, or use [[listeners]]")
        default = config.DEFAULT_SILVERLIGHT_LISTEN if dialect == config.SILVERLIGHT else config.DEFAULT_LISTEN
        addresses = [config.parse_endpoint(text) for text in options.listen or [default]]
        listeners = tuple(config.Listener(None, address, policies[0].name) for address in addresses)
    if dialect is not None:
        listeners = tuple(dataclasses.replace(listener, dialect=dialect) for listener in listeners)
    if options.upstream is not None:
        upstream = config.kind_of(config.Listener, "upstream").read_text("--upstream", options.upstream)
        listeners = tuple(dataclasses.replace(listener, upstream=upstream) for listener in listeners)
    return config.check(config.Config(server, policies, listeners))


def _source(options: argparse.Namespace) -> config.PolicySource:
    if options.allow:
        return config.PolicySource("from --allow", grants=tuple(options.allow))
    kind = "folder" if os.path.isdir(options.policy) else "file"
    return config.PolicySource("from --policy", **{kind: options.policy})


def run(options: argparse.Namespace) -> int:
    settings = configure(options)  # mistakes first: what follows takes its time to import
    from flashpol.log.handler import set_up
    from flashpol.serving.plan import Loader
    from flashpol.supervisor.arbiter import Arbiter

    set_up("arbiter", settings.server.log_format)  # a policy's warnings go to the log
    loader = Loader(partial(configure, options), options.config)
    return Arbiter(loader, announce).run()


def announce(generation: "Generation") -> None:
    """The ready line, and how to try it."""
    from flashpol.process.sockets import bound_address

    addresses = [bound_address(sockets[0]) for sockets in generation.sockets]
    count = generation.plan.config.server.worker_count
    workers = f"{count} worker{'s' if count != 1 else ''}"
    line = f"flashpol {VERSION} ready: {workers} on {', '.join(map(str, addresses))}"
    if generation.admin_socket:
        line += f"; metrics on http://{bound_address(generation.admin_socket)}/metrics"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(addresses[0].host, addresses[0].host)
    end = "\\0" if generation.plan.config.listeners[0].terminated else ""
    line += f"\ntry: printf '<policy-file-request/>{end}' | nc {host} {addresses[0].port}\n"
    with contextlib.suppress(OSError):  # nobody reads it, which is no reason not to serve
        os.write(1, line.encode())
