"""Certificates: reads and judges the files that the configuration names, before there is a worker.

What a server cannot use is a ConfigError: no start, and at a reload the running certificates stay. What clients will
object to is a finding, a warning in the log: the server works with it, for some clients or for some time.
"""

import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from flashpol.config import CertificateSource, Config, ConfigError
from flashpol.serving.file_watch import require_regular_file

# A file with more bytes is no chain: one of 4 certificates has 8 KB.
MAX_BYTES = 1 << 20
DAY = 86_400
# Days before its end from which a certificate is a finding. ACME clients renew with 30 days left, so theirs is overdue.
EXPIRES_SOON = 14
# The finding of `_tls` that is an error: many clients never connect, and the remedy is to write the file again.
OUT_OF_ORDER = "the certificates are not in order"
MISSING = (
    "certificates need OpenSSL, and this flashpol was built without it: install its headers (Debian: libssl-dev) and "
    "build again, `pip install --force-reinstall --no-deps .` in the source tree"
)

log = logging.getLogger("flashpol")


@dataclass(frozen=True)
class CertificateFacts:
    """What may be shown of a certificate. key: its kind, such as "ECDSA P-256". Times are in seconds since 1970.
    issuers: subject and end of each intermediate certificate in the chain. findings: those that time does not end."""

    name: str
    names: tuple[str, ...]
    not_before: int
    not_after: int
    key: str
    sha256: str
    chain_file: str
    issuers: tuple[tuple[str, int], ...] = ()
    findings: tuple[str, ...] = ()

    @property
    def ends(self) -> tuple[tuple[str, int], ...]:
        """Subject and end of each certificate of the chain; the subject of the first one, its own, is empty."""
        return ("", self.not_after), *self.issuers


@dataclass(frozen=True)
class LoadedCertificate:
    """A certificate of the configuration as a worker needs it: its chain and its key, in PEM."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    facts: CertificateFacts

    @property
    def names(self) -> tuple[str, ...]:
        return self.facts.names


Certificates = Mapping[str, LoadedCertificate]


def files_of(config: Config) -> list[Path]:
    """The files of all certificates."""
    return [path for source in config.certificates for path in (source.chain, source.key) if path]


def load_all(config: Config) -> dict[str, LoadedCertificate]:
    """By name, also those that no listener uses. Logs the findings. Raises ConfigError."""
    loaded, findings = {}, []
    for source in config.certificates:
        try:
            loaded[source.name], found = judged(source, time.time())
        except ConfigError as error:
            raise ConfigError(str(error), source.location) from None
        findings += [(source.name, text) for text in found]
    _require_profiles(config, loaded)
    for name, text in findings:
        log.warning("certificate %s: %s", name, text, extra={"event": "certificate-warning", "certificate": name})
    return loaded


def judge_all(config: Config) -> Iterator[tuple[str, list[str], str | None]]:
    """The name of each certificate, its findings, and why a server cannot use it."""
    for source in config.certificates:
        try:
            yield source.name, judged(source, time.time())[1], None
        except ConfigError as error:
            yield source.name, [], str(error)


def _openssl() -> ModuleType:
    try:
        return import_module("flashpol._tls")  # `from flashpol import` raises no ModuleNotFoundError
    except ModuleNotFoundError:
        raise ConfigError(MISSING) from None
    except ImportError as error:  # it was built with OpenSSL, and the library is gone
        raise ConfigError(f"OpenSSL cannot be loaded: {error}: install libssl3, or the package that has it") from None


def judged(source: CertificateSource, now: float) -> tuple[LoadedCertificate, list[str]]:
    """A certificate, and its findings, each a line that names the file. now: seconds since 1970. Raises ConfigError."""
    tls = _openssl()
    chain_file, key_file = source.chain, source.key or source.chain
    chain = _read(chain_file)
    key = _read(key_file) if source.key else chain
    if not source.key and b"PRIVATE KEY-----" not in chain and b"CERTIFICATE-----" in chain:
        raise ConfigError(f"{chain_file}: has no private key: set key to the file that has it (serve --tls CHAIN,KEY)")
    try:
        certificate = tls.Certificate(chain, key)
    except tls.PrivateKeyError as error:
        raise ConfigError(f"{key_file}: {error}") from None
    except tls.TlsError as error:
        raise ConfigError(f"{chain_file}: {error}") from None
    findings = [f"{chain_file}: {text}" for text in certificate.findings]
    if wrong := [text for text in certificate.findings if text.startswith(OUT_OF_ORDER)]:
        raise ConfigError(f"{chain_file}: {wrong[0]}")
    readable = f"{key_file}: every user of this host can read the private key: chmod o= {key_file}"
    of_key = [readable] if others_can_read(key_file) else []
    facts = CertificateFacts(
        source.name,
        certificate.names,
        certificate.not_before,
        certificate.not_after,
        certificate.key,
        certificate.sha256,
        str(chain_file),
        certificate.issuers,
        (*findings, *of_key),
    )
    if facts.not_after <= now:
        raise ConfigError(f"{chain_file}: expired on {date(facts.not_after)}: renew it")
    if facts.not_before > now:
        text = f"is not valid before {date(facts.not_before)}: check the clock of this host, or wait"
        findings.append(f"{chain_file}: {text}")
    findings += [ending.line for ending in expiry(facts, now)]
    return LoadedCertificate(chain, key, facts), findings + of_key


class Ending(NamedTuple):
    """The end of a certificate, or of an intermediate one: which, a line about it, whether it is over."""

    subject: str
    line: str
    over: bool


def expiry(facts: CertificateFacts, now: float) -> Iterator[Ending]:
    """The ends that are over or near. now: seconds since 1970."""
    for subject, end in facts.ends:
        what = f"the intermediate certificate {subject} " if subject else ""
        advice = "get the chain from its issuer again" if subject else "renew it"
        if end <= now:
            line = f"{what}expired on {date(end)}, and clients refuse it: {advice}"
        elif end - now < EXPIRES_SOON * DAY:
            days = int((end - now) // DAY)
            line = f"{what}expires in {days} day{'s' * (days != 1)}, on {date(end)}: {advice}"
        else:
            continue
        yield Ending(subject, f"{facts.chain_file}: {line}", end <= now)


def date(seconds: int) -> str:
    """In UTC, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _require_profiles(config: Config, loaded: Certificates) -> None:
    """OpenSSL refuses a weak certificate unless old protocols are allowed. A worker would notice it too late."""
    wanted = {(name, listener.tls_profile): listener for listener in config.listeners for name in listener.tls}
    for (name, profile), listener in wanted.items():
        certificate, tls = loaded[name], _openssl()
        try:
            tls.ServerContext([(certificate.chain, certificate.key, certificate.names)], profile=profile)
        except tls.TlsError as error:
            text = (
                f'certificate {name} cannot be used with tls_profile = "{profile}": {error}: have it issued again, '
                "with an ECDSA P-256 or RSA 2048 key and signed with SHA-256"
            )
            raise ConfigError(
                f"{listener.title}: {text}", listener.location and listener.location.child("tls")
            ) from None


def _read(path: Path) -> bytes:
    require_regular_file(path)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY)) as file:
            data = file.read(MAX_BYTES + 1)
    except PermissionError as error:
        advice = "let the user that starts flashpol read it; the workers need not"
        raise ConfigError(f"{path}: cannot be read: {error.strerror}: {advice}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a file's name: {error}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: is larger than {MAX_BYTES:,} bytes: is this a PEM file?")
    return data


def others_can_read(path: Path) -> bool:
    """Users other than its owner and its group can read it: their bit is set, and that of each folder above it."""
    try:
        real = path.resolve(strict=True)
        if not real.stat().st_mode & stat.S_IROTH:
            return False
        return all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)
    except OSError:
        return False
