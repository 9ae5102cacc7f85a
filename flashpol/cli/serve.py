"""flashpol serve: answer policy requests."""

import argparse
import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashpol import config
from flashpol.version import VERSION

if TYPE_CHECKING:
    from flashpol.server.arbiter import Arbiter

DESCRIPTION = """Answer Flash socket policy requests, until SIGTERM or Ctrl-C; those inside are finished first."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser("serve", help="answer policy requests", description=DESCRIPTION)
    add = parser.add_argument
    add("-c", "--config", metavar="FILE", type=Path, help="configuration file (TOML); the flags below override it")
    add(
        "--listen",
        metavar="IP:PORT",
        action="append",
        default=[],
        help=f"address to serve, may be repeated; [::] is IPv4 too, port 0 is any (default {config.DEFAULT_LISTEN})",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--policy", metavar="FILE", type=Path, help="serve this policy file")
    what.add_argument(
        "--allow",
        metavar="DOMAIN:PORTS",
        action="append",
        default=[],
        help="serve a policy that grants this, e.g. '*.example.com:1935,8000-8100'; may be repeated",
    )
    add("--workers", metavar="N", help="worker processes, or auto: one for each CPU (default auto)")
    add("--admin", metavar="IP:PORT", help=f"metrics and health, or off (default {config.DEFAULT_ADMIN})")
    add("--user", metavar="NAME", help="become this user once the addresses are bound")
    parser.set_defaults(run=run)  # fmt: skip


def configure(options: argparse.Namespace) -> config.Config:
    """The file, with the flags over it. Raises ConfigError."""
    settings = config.load(options.config) if options.config else config.Config(config.Server(), (), ())
    server = settings.server
    if options.workers is not None:
        server = dataclasses.replace(server, workers=config.parse_workers(options.workers))
    if options.admin is not None:
        server = dataclasses.replace(server, admin=config.parse_admin(options.admin))
    if options.user is not None:
        server = dataclasses.replace(server, user=options.user)
    policies, listeners = settings.policies, settings.listeners
    if options.policy or options.allow:
        policies = (
            config.PolicySource(
                "from --allow" if options.allow else "from --policy", options.policy, tuple(options.allow)
            ),
        )
        listeners = tuple(dataclasses.replace(listener, policy=policies[0].name) for listener in listeners)
    if not policies:
        raise config.ConfigError("no policy: add --policy FILE or --allow DOMAIN:PORTS, as in '*.example.com:1935'")
    if options.listen or not listeners:
        if len(policies) > 1:
            raise config.ConfigError("--listen with several policies: say which with --policy, or use [[listeners]]")
        addresses = [config.Address.parse(text) for text in options.listen or [config.DEFAULT_LISTEN]]
        listeners = tuple(config.Listener(None, address, policies[0].name) for address in addresses)
    return config.check(config.Config(server, policies, listeners))


def run(options: argparse.Namespace) -> int:
    settings = configure(options)
    from flashpol.server.arbiter import Arbiter
    from flashpol.server.policies import compile_source
    from flashpol.server.process import keep_standard_descriptors

    keep_standard_descriptors()
    compiled = {source.name: compile_source(source) for source in settings.policies}
    return Arbiter(settings, [compiled[listener.policy] for listener in settings.listeners], announce).run()


def announce(arbiter: "Arbiter") -> None:
    """The ready line, and how to try it."""
    from flashpol.server.sockets import bound_address

    addresses = [bound_address(sockets[0]) for sockets in arbiter.sockets]
    count = arbiter.config.server.worker_count
    workers = f"{count} worker{'s' if count != 1 else ''}"
    line = f"flashpol {VERSION} ready: {workers} on {', '.join(map(str, addresses))}"
    if arbiter.admin_socket:
        line += f"; metrics on http://{bound_address(arbiter.admin_socket)}/metrics"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(addresses[0].host, addresses[0].host)
    line += f"\ntry: printf '<policy-file-request/>\\0' | nc {host} {addresses[0].port}\n"
    with contextlib.suppress(OSError):  # nobody reads it, which is no reason not to serve
        os.write(1, line.encode())
