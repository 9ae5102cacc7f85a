"""From what the configuration says of a policy to the bytes that are served."""

from collections.abc import Sequence
from pathlib import Path

from flashpol.config import ConfigError, PolicySource
from flashpol.policy import MAX_POLICY_BYTES, PolicyError, allow_policy, compile_reply, render


def compile_source(source: PolicySource) -> bytes:
    """The reply for one policy of the configuration, NUL included. Raises ConfigError, as all below do."""
    if source.file is not None:
        return compile_file(source.file)
    return compile_grants(source.grants, f"policy {source.name}")


def compile_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)  # with one byte too many it is refused
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a file's name: {error}") from None
    return compile_text(data, str(path))


def compile_grants(grants: Sequence[str], where: str = "allow") -> bytes:
    """From `DOMAIN:PORTS`."""
    try:
        return compile_reply(render(allow_policy(grants)))
    except PolicyError as error:
        raise ConfigError(f"{where}: {error}") from None


def compile_text(data: bytes, where: str = "policy") -> bytes:
    try:
        return compile_reply(data)
    except PolicyError as error:
        raise ConfigError(f"{where}: {error}") from None
