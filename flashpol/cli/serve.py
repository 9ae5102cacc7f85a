"""flashpol serve: reply to policy requests."""

import argparse
import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashpol.cli import pid_file
from flashpol.cli.configure import add_flags, config_file, configure
from flashpol.config import ConfigError, log_file_error
from flashpol.version import VERSION

if TYPE_CHECKING:
    from flashpol.config import Config
    from flashpol.log.file import LogFile
    from flashpol.supervisor.generation import Generation

DESCRIPTION = """Reply to Flash socket policy requests until SIGTERM or Ctrl-C; open connections are finished first.
SIGHUP reloads the configuration."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser("serve", help="reply to policy requests", description=DESCRIPTION)
    add_flags(parser)
    parser.add_argument(
        "--pid-file",
        metavar="FILE",
        type=Path,
        help="write the process id to this file once the server is ready, remove it at the end (default: no file)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from flashpol.serving.file_watch import require_regular_file

    file = config_file(options)
    if file is not None:
        require_regular_file(file)
    settings = configure(options)  # mistakes first: the imports below take longer
    if options.pid_file is not None:
        pid_file.require_writable(options.pid_file)
    from flashpol.log.file import LogFile
    from flashpol.log.handler import set_up

    log_file = LogFile()
    try:
        log_file.use(settings.server.log_file)
    except OSError as error:
        raise log_file_error(settings.server, error) from None
    set_up("arbiter", settings.server.log_format)  # warnings about policies go to the log
    try:
        status = _serve(options, file, settings, log_file)
    except ConfigError:
        log_file.use(None)  # `main` reports it where the command was called
        raise
    finally:
        if options.pid_file is not None:
            pid_file.remove(options.pid_file)
    # The interpreter would free all its memory first, while systemd waits for the end to start the next server.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _serve(options: argparse.Namespace, file: Path | None, settings: "Config", log_file: "LogFile") -> int:
    """The exit status of the server."""
    from flashpol.process.limits import raise_file_limit
    from flashpol.supervisor.listen_sockets import ListenSockets
    from flashpol.supervisor.systemd import listen_fds

    raise_file_limit()
    listen_sockets = ListenSockets(listen_fds())
    listen_sockets.acquire_for(settings)  # after a restart, clients wait here while the rest is imported and loaded
    from flashpol.serving.plan import Loader
    from flashpol.supervisor.arbiter import Arbiter

    loader = Loader(partial(configure, options), file)
    return Arbiter(loader, log_file, partial(announce, options), listen_sockets).run()


def announce(options: argparse.Namespace, generation: "Generation") -> None:
    """Called once all workers accept: the ready line, a command to try, and the pid file."""
    from flashpol.log.handler import log
    from flashpol.process.sockets import bound_address
    from flashpol.serving.plan import log_exposures

    addresses = [bound_address(sockets[0]) for sockets in generation.sockets]
    count = generation.plan.config.server.worker_count
    workers = f"{count} worker{'s' if count != 1 else ''}"
    line = f"flashpol {VERSION} ready: {workers} on {', '.join(map(str, addresses))}"
    if generation.admin_socket and generation.admin and generation.admin.status.up:
        line += f"; metrics on http://{bound_address(generation.admin_socket)}/metrics"
    # [::] serves IPv4 too, and ::1 is missing where IPv6 is disabled.
    host = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}.get(addresses[0].host, addresses[0].host)
    first = generation.plan.config.listeners[0]
    end = "\\0" if first.terminated else ""
    port = addresses[0].port
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    program = f"openssl s_client -quiet -connect {place}" if first.tls_only else f"nc {host} {port}"
    line += f"\ntry: printf '<policy-file-request/>{end}' | {program}\n"
    if options.pid_file is not None:
        try:
            pid_file.write(options.pid_file)
        except OSError as error:  # the server is well without it
            fields = {"event": "pid-file-not-written", "errno": error.errno}
            log.error("%s: cannot be written: %s", options.pid_file, error.strerror, extra=fields)
    admin = bound_address(generation.admin_socket) if generation.admin_socket else None
    log_exposures(admin, generation.plan.privileges)
    with contextlib.suppress(OSError):  # a closed or full stdout is no reason to stop serving
        os.write(1, line.encode())
