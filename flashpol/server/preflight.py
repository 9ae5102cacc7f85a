"""What a configuration asks of the host, looked at without binding anything or becoming anybody."""

import grp
import os
import pwd
from collections.abc import Callable

from flashpol.config import Config, ConfigError


def look(config: Config) -> None:
    """Raises ConfigError for a user, group or root folder that is not there."""
    server = config.server
    _look_up("user", server.user, pwd.getpwnam)
    _look_up("group", server.group, grp.getgrnam)
    if server.chroot is not None and not os.path.isdir(server.chroot):
        raise ConfigError(f"chroot {server.chroot}: there is no such folder")


def _look_up(what: str, name: str | None, find: Callable[[str], object]) -> None:
    try:
        if name is not None:
            find(name)
    except (KeyError, ValueError):  # ValueError: a NUL in it
        raise ConfigError(f"{what} {name!r}: there is no such {what}") from None
