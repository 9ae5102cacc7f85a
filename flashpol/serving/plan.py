"""What to serve: a configuration, and everything loaded that it names."""

import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flashpol.config import Address, Config, ConfigError
from flashpol.process.core_dumps import forbid_core_dumps
from flashpol.process.local_ports import LocalPorts, require_sources
from flashpol.process.privileges import Privileges
from flashpol.serving import policy_files, websocket_findings
from flashpol.serving.certificates import Certificates, files_of, load_all
from flashpol.serving.file_watch import Snapshot, digest, require_regular_file
from flashpol.serving.networks import Access
from flashpol.serving.policies import compile_all
from flashpol.serving.policy_files import UrlPolicies

# Seconds for which a reload tries certificates that do not fit again, and between two tries: a program that renews one
# replaces the chain and the key one after the other, and certbot removes a link before it makes the new one.
CERTIFICATES_PATIENCE, CERTIFICATES_PAUSE = 1.0, 0.1

log = logging.getLogger("flashpol")

TICKET_KEY_BYTES = 80  # what OpenSSL expects


@dataclass(frozen=True)
class Plan:
    """`replies` are the bytes that `config.listeners` serve, `access` the networks they serve; `privileges` are the
    children's; `local_ports` are the host's, which a worker may be unable to look up. `certificates` are those of the
    configuration by name, `ticket_keys` encrypt the session tickets of all workers. `url_policies` are the files that
    `config.listeners` serve by URL, `websocket_findings` what is to be said of their WebSocket paths. It can be
    pickled: a reload loads it in a process of its own."""

    config: Config
    replies: Sequence[bytes] = field(repr=False)
    access: Sequence[Access] = field(repr=False)
    privileges: Privileges
    local_ports: LocalPorts = field(default_factory=LocalPorts, repr=False)
    certificates: Certificates = field(default_factory=dict, repr=False)
    url_policies: Sequence[UrlPolicies] = field(default=(), repr=False)
    websocket_findings: Sequence[Sequence[str]] = ()
    ticket_keys: bytes = field(default_factory=partial(os.urandom, TICKET_KEY_BYTES), repr=False)


class Loader:
    """Makes a Plan each time it is asked.

    configure: reads the configuration; raises ConfigError. file: the configuration file, if there is one.
    """

    def __init__(self, configure: Callable[[], Config], file: Path | None = None) -> None:
        self._configure = configure
        self._file = [file] if file else []
        self._known: Collection[str] | None = None  # exposures of the start

    def load(self, on_snapshot: Callable[[Snapshot], object] = lambda _: None) -> Plan:
        """Read the configuration, load its policies, look up its user. Raises ConfigError.

        on_snapshot: called with the files that will be read, before they are read, so that a watch of them misses no
        change; again when the configuration has named more files.
        """
        paths = self._file
        while True:
            on_snapshot(Snapshot.of(paths))
            for file in self._file:
                require_regular_file(file)
            before = digest(self._file)
            config = self._configure()
            paths = [
                *self._file,
                *(path for source in config.policies for path in (source.file, source.folder) if path),
                *files_of(config),
                *policy_files.files_of(config),
            ]
            on_snapshot(Snapshot.of(paths))
            if digest(self._file) == before:  # the snapshot is of the file that was read
                break
        transparent = any(listener.transparent for listener in config.listeners)
        privileges = Privileges.of(config.server, transparent=transparent)
        privileges.require_rights()
        require_sources(config)
        websocket_findings.require_zlib(config)
        patience = 0.0 if self._known is None else CERTIFICATES_PATIENCE  # the start has nothing to keep serving
        certificates = _load_certificates(config, patience, lambda: on_snapshot(Snapshot.of(paths)))
        if self._known is None:  # `announce` logs those of the start, once it serves: a start that fails says only why
            self._known = [text for text, _ in exposures(config.server.admin, privileges)]
        log_exposures(config.server.admin, privileges, self._known)
        access = list(map(Access.of, config.listeners))
        replies = compile_all(config)
        findings = websocket_findings.warn_all(config, replies)
        by_url = policy_files.load_all(config)
        return Plan(config, replies, access, privileges, LocalPorts.of_host(), certificates, by_url, findings)


def _load_certificates(config: Config, patience: float, before_again: Callable[[], object]) -> Certificates:
    """Those of the configuration. Raises ConfigError if they do not fit for `patience` seconds."""
    if config.certificates:
        forbid_core_dumps()
    deadline = time.monotonic() + patience
    while True:
        try:
            return load_all(config)
        except ConfigError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(CERTIFICATES_PAUSE)
        before_again()


def exposures(admin: object, privileges: Privileges) -> list[tuple[str, dict[str, str]]]:
    """What makes an attack worse: log lines with their fields. admin: what the admin endpoint is bound to."""
    found = []
    if isinstance(admin, Address) and not admin.is_loopback:
        text = f"the admin endpoint listens on {admin} and asks for no password; let only trusted hosts reach it"
        found.append((text, {"event": "admin-exposed"}))
    if privileges.are_roots:
        found.append(("the workers run as root; set user to an unprivileged user", {"event": "root"}))
    return found


def log_exposures(admin: object, privileges: Privileges, known: Collection[str] = ()) -> None:
    """Log those that are not `known`, by their text."""
    for text, fields in exposures(admin, privileges):
        if text not in known:
            log.warning("%s", text, extra=fields)
