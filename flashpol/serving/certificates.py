"""Certificates of the configuration: what is loaded of their files."""

import ssl
from dataclasses import dataclass, field

from flashpol.config import Config


@dataclass(frozen=True)
class LoadedCertificate:
    """A certificate with its chain and its key, in PEM."""

    name: str
    names: tuple[str, ...]
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)


def load_all(config: Config) -> dict[str, LoadedCertificate]:
    loaded = {}
    for source in config.certificates:
        facts = ssl._ssl._test_decode_cert(str(source.chain))  # type: ignore[attr-defined]
        names = tuple(value for _, value in facts.get("subjectAltName", ()))
        chain = source.chain.read_bytes()
        loaded[source.name] = LoadedCertificate(
            source.name, names, chain, source.key.read_bytes() if source.key else chain
        )
    return loaded
