"""What a configuration asks of the host, looked at without binding or becoming anything."""

import grp
import os

from flashpol.config import Config, ConfigError
from flashpol.server.process import account


def look(config: Config) -> None:
    """Raises ConfigError for a user, group or root folder that is not there."""
    server = config.server
    if server.user is not None:
        account(server.user)
    if server.group is not None:
        try:
            grp.getgrnam(server.group)
        except (KeyError, ValueError):  # ValueError: a NUL in it
            raise ConfigError(f"group {server.group!r}: there is no such group") from None
    if server.chroot is not None and not os.path.isdir(server.chroot):
        raise ConfigError(f"chroot {str(server.chroot)!r}: there is no such folder")
