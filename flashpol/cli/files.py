"""Writing files from commands."""

import contextlib
import os
import stat
from pathlib import Path

from flashpol.config import ConfigError


def replace(path: Path, data: bytes) -> None:
    """Replace the contents of a file atomically: readers see the old or the new file, and a failure leaves the old one.

    The file keeps its permissions; a symbolic link remains one. Raises ConfigError.
    """
    new = None
    try:
        path = path.resolve() if path.exists() else path
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        if mode is not None and not path.is_file():
            raise ConfigError(f"{path}: not a regular file; omit -o to write to standard output")
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        new.rename(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        if new is not None:
            with contextlib.suppress(OSError):  # it was renamed if all went well
                new.unlink()
