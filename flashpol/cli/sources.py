"""The policies that `check` and `decide` read: files, folders, standard input, and those of a configuration."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flashpol import config
from flashpol.config import ConfigError, Listener, WebSocketPath
from flashpol.policy import CLIENTS, MAX_POLICY_BYTES, PolicyError, merge_files
from flashpol.serving.policies import CLIENTS_OF, fragments, generated, read_file
from flashpol.serving.policy_files import URL_CLIENTS

STDIN = "-"


@dataclass(frozen=True)
class Source:
    """One policy: its name in messages, its bytes, or the error that prevented reading it.

    `served_from` is the port that serves it, if known, and `clients` are the clients that it is for. `by_url`: they
    fetch it by URL. `settings` are those of the listener, or of the first of several.
    """

    name: str
    data: bytes = b""
    error: str | None = None
    served_from: int | None = None
    clients: tuple[str, ...] = CLIENTS
    listener: str = ""
    by_url: bool = False
    settings: Listener | None = None


def read(name: str) -> bytes:
    """Return the bytes of a file, or of standard input for `-`; one byte too many is enough to find it too large.

    Raises ConfigError.
    """
    if name != STDIN:
        return read_file(Path(name)) if name else _refuse(name)
    try:
        return sys.stdin.buffer.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"standard input: cannot be read: {error.strerror}") from None


def _refuse(name: str) -> bytes:
    raise ConfigError(f"{name!r} is not a file name; check for an unset shell variable")


def is_folder(name: str) -> bool:
    # Unlike Path.is_dir, this is False for invalid names, which reading then reports.
    return name != STDIN and os.path.isdir(name)


def one(name: str) -> Source:
    """Return the policy of a file, or the merge of a folder, as the server would serve it. Raises ConfigError."""
    if not is_folder(name):
        return Source(name, read(name))
    return Source(f"{name} (merged)", _merged(Path(name)))


def each(name: str) -> Iterator[Source]:
    """Yield the policy of a file, or the policies in a folder; errors are in the sources."""
    try:
        names = [str(path) for path in fragments(Path(name))] if is_folder(name) else [name]
    except ConfigError as error:
        yield Source(name, error=str(error).removeprefix(f"{name}: "))
        return
    for file in names:
        yield _read(file)


def _read(name: str) -> Source:
    try:
        return Source(name, read(name))
    except ConfigError as error:
        return Source(name, error=str(error).removeprefix(f"{name}: ").removeprefix("cannot be read: "))


def of_config(path: Path, *, fragment_files: bool, by_paths: bool = False) -> list[Source]:
    """Return the policy of each listener of a configuration, with the port that clients ask, and unused policies.

    With `fragment_files`, each file of a folder is a source too. Listeners with the same policy, dialect and port share
    a source; with `by_paths`, only if they have the same WebSocket paths too. Raises ConfigError.
    """
    settings = config.load(path)
    found: dict[tuple[str, str, int | None, tuple[WebSocketPath, ...]], list[Listener]] = {}
    for listener in settings.listeners:
        paths = listener.websocket if by_paths else ()
        found.setdefault((listener.policy, listener.dialect, listener.public_port, paths), []).append(listener)
    used = {name for name, *_ in found}
    for policy in settings.policies:
        if policy.name not in used:
            found[policy.name, "", None, ()] = []
    sources: list[Source] = []
    for (name, dialect, port, _), listeners in found.items():
        clients = CLIENTS_OF.get(dialect, CLIENTS)
        names = ", ".join(str(each.name or each.address) for each in listeners)
        first = listeners[0] if listeners else None
        for title, data in _policy(settings.policy(name), fragment_files):
            sources.append(Source(title, data, None, port, clients, names, settings=first))
    return sources


def by_url(path: Path) -> list[Source]:
    """Return the files that the listeners of a configuration serve by URL, each once for a port. Raises ConfigError."""
    found: dict[tuple[Path, str, int | None], list[str]] = {}
    for listener in config.load(path).listeners:
        for url, file in listener.policy_files.items():
            found.setdefault((file, url, listener.public_port), []).append(str(listener.name or listener.address))
    return [
        Source(str(file), read_file(file), None, port, URL_CLIENTS[url], ", ".join(listeners), by_url=True)
        for (file, url, port), listeners in found.items()
    ]


def policy_of(source: config.PolicySource) -> bytes:
    """The policy that a listener serves, without checking it. Raises ConfigError."""
    [(_, data)] = _policy(source, fragment_files=False)
    return data


def _policy(source: config.PolicySource, fragment_files: bool) -> Iterator[tuple[str, bytes]]:
    try:
        if source.file is not None:
            yield str(source.file), read_file(source.file)
        elif source.folder is not None:
            if fragment_files:
                for file in fragments(source.folder):
                    yield str(file), read_file(file)
            yield f"{source.folder} (merged)", _merged(source.folder)
        else:
            yield f"policy {source.name}", generated(source)
    except PolicyError as error:
        raise ConfigError(f"policy {source.name}: {error}", source.location) from None


def _merged(folder: Path) -> bytes:
    try:
        return merge_files([(str(file), read_file(file)) for file in fragments(folder)])
    except PolicyError as error:
        raise ConfigError(str(error)) from None
