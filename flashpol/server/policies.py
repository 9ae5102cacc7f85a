"""From what the configuration says of a policy to the bytes that are served."""

import os
from pathlib import Path

from flashpol.config import ConfigError, PolicySource
from flashpol.policy import PolicyError, allow_policy, compile_reply, render

# No client reads as much: Unity stops at 5,000 bytes, Adobe's own server refuses 10,000. What is larger is a mistake.
MAX_FILE_BYTES = 16 * 1024 * 1024


def from_path(path: str | os.PathLike[str]) -> PolicySource:
    return PolicySource(str(path), file=Path(path))


def compile_policy(source: PolicySource) -> bytes:
    """The reply for one policy, NUL included. Raises ConfigError with the file's name, or the grant, in front."""
    if source.file is None:
        try:
            return compile_reply(render(allow_policy(source.grants)))
        except PolicyError as error:
            raise ConfigError(f"policy {source.name}: {error}") from None
    try:
        with source.file.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{source.file}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(f"{source.file}: larger than {MAX_FILE_BYTES} bytes: not a policy")
    try:
        return compile_reply(data)
    except PolicyError as error:
        raise ConfigError(f"{source.file}: {error}") from None
