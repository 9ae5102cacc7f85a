"""From a policy in the configuration to the bytes that are served."""

import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flashpol.config import DIALECTS, FLASH, SILVERLIGHT, Config, ConfigError, Listener, PolicySource
from flashpol.policy import (
    MAX_POLICY_BYTES,
    MetaPolicy,
    Policy,
    PolicyError,
    Severity,
    allow_policy,
    compile_reply,
    explained,
    lint,
    merge_files,
    render,
    silverlight,
)
from flashpol.policy.findings import CLIENTS
from flashpol.serving.file_watch import require_regular_file

_COMPILERS = {FLASH: compile_reply, SILVERLIGHT: silverlight.compile_reply}
# All clients may read a Flash policy, so what one of them misreads is a warning. Only Silverlight reads the other.
CLIENTS_OF = {FLASH: CLIENTS, SILVERLIGHT: ("silverlight",)}

_PLACE = re.compile(r"^line (\d+), column (\d+): ")

log = logging.getLogger("flashpol")


def compile_all(config: Config) -> list[bytes]:
    """The reply of each listener, in their order. Raises ConfigError, as all functions here do, and also for a policy
    that no listener uses."""
    used = {(listener.policy, listener.dialect) for listener in config.listeners}
    replies = {(name, dialect): compile_source(config.policy(name), dialect) for name, dialect in sorted(used)}
    for source in config.policies:
        if source.name not in {name for name, _ in used}:
            _check(source)
    for listener in config.listeners:
        _warn_about_port(listener, replies[listener.policy, listener.dialect])
    return [replies[listener.policy, listener.dialect] for listener in config.listeners]


def _warn_about_port(listener: Listener, reply: bytes) -> None:
    """Log warnings and errors that depend on the port; such errors refuse nothing, since a redirect may change it."""
    if listener.public_port:
        clients = CLIENTS_OF[listener.dialect]
        elsewhere = lint(reply, clients=clients)
        for finding in lint(reply, served_from=listener.public_port, clients=clients):
            if finding.severity is not Severity.NOTE and finding not in elsewhere:
                name = str(listener.name or listener.address)
                words = finding.quoting_source()
                log.warning("listener %s: %s", name, words, extra={"event": "policy-warning", "listener": name})


def _check(source: PolicySource) -> None:
    """Compile a policy without a listener, whose dialect is unknown: one dialect has to accept it."""
    for dialect in DIALECTS[1:]:
        with suppress(ConfigError):
            compile_source(source, dialect)
            return
    compile_source(source)


def compile_source(source: PolicySource, dialect: str = FLASH) -> bytes:
    """The reply for one policy of the configuration: with its NUL in Flash's dialect, without in Silverlight's.

    Only regular files are read: a server reads them again at each reload, and a FIFO would block it.
    """
    try:
        if source.file is not None:
            require_regular_file(source.file)
            return compile_file(source.file, dialect)
        if source.folder is not None:
            for file in fragments(source.folder):
                require_regular_file(file)
            return compile_folder(source.folder, dialect)
        return _compile_generated(source, dialect)
    except ConfigError as error:
        raise ConfigError(str(error), source.location) from None


def generated(source: PolicySource) -> bytes:
    """The Flash policy that `grants` or `deny_all` stand for. Raises PolicyError."""
    return render(Policy((), MetaPolicy.NONE) if source.deny_all else allow_policy(source.grants))


def _compile_generated(source: PolicySource, dialect: str) -> bytes:
    if not source.deny_all:
        return compile_grants(source.grants, f"policy {source.name}", dialect=dialect)
    where = f"policy {source.name}"
    if dialect != FLASH:
        raise ConfigError(f"{where}: deny_all is for Flash policies; {dialect} is denied where nothing is served")
    return compile_text(generated(source), where, generated=True)


def compile_path(path: Path, dialect: str = FLASH) -> bytes:
    """The reply for a file or a folder."""
    # Unlike Path.is_dir, this does not raise for an impossible name; reading the file then says why.
    return compile_folder(path, dialect) if os.path.isdir(path) else compile_file(path, dialect)


def compile_file(path: Path, dialect: str = FLASH) -> bytes:
    return compile_text(read_file(path), str(path), dialect=dialect)


def compile_folder(path: Path, dialect: str = FLASH) -> bytes:
    """The reply for the merge of all fragments in a folder."""
    if dialect != FLASH:
        raise ConfigError(f"{path}: is a folder, and only Flash policies are merged; write one {dialect} policy file")
    try:
        merged = merge_files([(str(file), read_file(file)) for file in fragments(path)])
    except PolicyError as error:
        raise ConfigError(str(error)) from None
    return compile_text(merged, f"{path} (merged)", generated=True)


def compile_grants(grants: Sequence[str], where: str = "allow", *, dialect: str = FLASH) -> bytes:
    """The reply for grants such as `*.example.com:1935`."""
    if dialect != FLASH:
        raise ConfigError(f"{where}: DOMAIN:PORTS is for Flash policies; write a {dialect} policy file")
    try:
        rendered = render(allow_policy(grants))
    except PolicyError as error:
        raise ConfigError(f"{where}: {error}") from None
    return compile_text(rendered, where, generated=True)


def compile_text(data: bytes, where: str = "policy", *, dialect: str = FLASH, generated: bool = False) -> bytes:
    """Parse and lint a policy, and return its reply. Errors refuse it, warnings are logged, notes are not.

    A finding in a generated text quotes its source line instead of a place that no file has.
    """
    try:
        reply = _COMPILERS[dialect](data)
    except PolicyError as error:
        raise ConfigError(with_place(where, explained(error, data, CLIENTS_OF[dialect]))) from None
    findings = lint(data, clients=CLIENTS_OF[dialect])
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more: flashpol check shows all)" if len(errors) > 1 else ""
        words = f"{where}: {errors[0].quoting_source()}" if generated else with_place(where, errors[0])
        raise ConfigError(f"{words}{more}")
    for finding in findings:
        if finding.severity is Severity.WARNING:
            words = f"{where}: {finding.quoting_source()}" if generated else with_place(where, finding)
            log.warning("%s", words, extra={"event": "policy-warning"})
    return reply


def with_place(where: str, error: object) -> str:
    """An error as FILE:LINE:COLUMN: MESSAGE, the form that the configuration and `flashpol check` use too."""
    place = _PLACE.match(words := str(error))
    return f"{where}:{place[1]}:{place[2]}: {words[place.end() :]}" if place else f"{where}: {words}"


# -------------------------------------------------------------------------------------------------------------- files


def read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_POLICY_BYTES + 1)  # one byte more than is allowed, so that it is refused
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a file's name: {error}") from None


def _is_fragment(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and not path.name.startswith(".") and not path.is_dir()


def fragments(folder: Path) -> list[Path]:
    """The policy files of a folder, sorted: its *.xml, without hidden files (editors leave some) and subfolders."""
    try:
        names = sorted(path for path in folder.iterdir() if _is_fragment(path))
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{folder}: not a folder's name: {error}") from None
    if not names:
        raise ConfigError(f"{folder}: no policy in this folder: put *.xml files there, or name a file")
    return names
