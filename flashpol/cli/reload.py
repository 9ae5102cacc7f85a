"""flashpol reload: have a running server load its configuration again."""

import argparse
import os
import signal
from pathlib import Path
from typing import Any

from flashpol.cli import pid_file
from flashpol.config import ConfigError

DESCRIPTION = """Send SIGHUP to a running flashpol serve, which then loads its configuration and policies again. Only a
flashpol server is ever signalled: a stale process id is an error. Exit status: 0 the signal was sent, 2 it was not."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser("reload", help="reload the configuration of a running server", description=DESCRIPTION)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--pid-file",
        metavar="FILE",
        type=Path,
        default=pid_file.DEFAULT_PID_FILE,
        help=f"file that the server's --pid-file names (default {pid_file.DEFAULT_PID_FILE})",
    )
    which.add_argument("--pid", metavar="N", type=_pid, help="process id of the server")
    parser.set_defaults(run=run)


def _pid(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) < 1 << 31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a process id")
    return int(text)


def run(options: argparse.Namespace) -> int:
    pid = options.pid or pid_file.read(options.pid_file)
    source = "--pid" if options.pid else options.pid_file
    try:
        process = os.pidfd_open(pid)  # from here on the number cannot come to mean another process
        try:
            require_arbiter(pid, source)
            signal.pidfd_send_signal(process, signal.SIGHUP)
        finally:
            os.close(process)
    except ProcessLookupError:
        raise ConfigError(f"{source}: process {pid} does not exist") from None
    except PermissionError:
        raise ConfigError(f"process {pid}: no permission to signal it: run this as its user, or as root") from None
    print(f"sent SIGHUP to process {pid}; flashpol status says whether it has loaded the configuration")
    return 0


def require_arbiter(pid: int, source: object) -> None:
    """Raise ConfigError unless the process is the arbiter of a flashpol server.

    Its children have the same command line but ignore SIGHUP; another program might be killed by it.
    """
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise ProcessLookupError from None
    [ignored] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigIgn:")]
    # The first word is the interpreter, or the program itself: `timeout 1h flashpol serve` is another program.
    runs_python = os.path.basename(words[0]).startswith((b"python", b"flashpol"))
    if not runs_python or b"serve" not in words or not any(b"flashpol" in word for word in words):
        raise ConfigError(f"{source}: process {pid} is not a flashpol server")
    if ignored & 1 << signal.SIGHUP - 1:
        raise ConfigError(f"{source}: process {pid} is a child of a flashpol server: name its parent")
