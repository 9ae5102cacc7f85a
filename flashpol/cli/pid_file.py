"""The file with the process id of the arbiter: serve writes it, reload reads it."""

import contextlib
import os
from pathlib import Path

from flashpol.cli.files import overwrite, put
from flashpol.config import ConfigError

# reload reads it unless told otherwise; serve writes one only with --pid-file.
DEFAULT_PID_FILE = Path("/run/flashpol.pid")


def require_writable(path: Path) -> None:
    """Raise ConfigError if the file cannot be created or replaced, before anything is bound."""
    folder = path.absolute().parent
    reason = ""
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        reason = "permission denied"
    if reason:
        raise ConfigError(f"--pid-file {path}: cannot be written: {reason}")


def write(path: Path) -> None:
    """Readers see the old or the new file, and a symbolic link is replaced. Raises OSError."""
    data = f"{os.getpid()}\n".encode()
    try:
        put(path, data)
    except PermissionError:  # a file that is there for this user, in a folder that is not
        overwrite(path, data)


def remove(path: Path) -> None:
    """Remove the file if it names this process: another server may have replaced it."""
    with contextlib.suppress(OSError, ConfigError):
        if read(path) == os.getpid():
            path.unlink()


def read(path: Path) -> int:
    """The process id in a file. Raises ConfigError."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = (
                ": start the server with --pid-file, or name its process with --pid; of a service of systemd write "
                "systemctl reload flashpol"
            )
        raise ConfigError(f"{path}: cannot be read: {error.strerror}{hint}") from None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:12]) < 1 << 31):
        raise ConfigError(f"{path}: does not hold a process id: {text[:40]!r}")
    return int(text)
