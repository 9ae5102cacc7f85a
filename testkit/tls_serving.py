"""TLS on the listener of a test's Service: certificates, settings, and what its counters say."""

import importlib.util
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flashpol._fastpath import HANDSHAKE_FAILURES, TLS_VERSIONS
from flashpol.counters.layout import Block
from testkit.certificates import CA, make_ca

# A machine without OpenSSL's headers builds flashpol without TLS.
AVAILABLE = importlib.util.find_spec("flashpol._tls") is not None


class Pair(NamedTuple):
    """A certificate chain and its key, in PEM, and the names that it is for."""

    chain: bytes
    key: bytes
    names: tuple[str, ...]


@cache
def authority() -> CA:
    """The one that has issued all of them. Its folder is gone: what is used of it is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        return make_ca(Path(folder))


@cache
def issue(*names: str, key: str = "ecdsa") -> Pair:
    """A certificate for these names. The same arguments return the same one."""
    with tempfile.TemporaryDirectory() as folder:
        files = authority().issue(*names, kind=key, into=Path(folder))
        return Pair(files.chain.read_bytes(), files.key.read_bytes(), names)


def leaf(pair: Pair) -> bytes:
    """Its first certificate, in DER."""
    end = "-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert(pair.chain.decode().partition(end)[0] + end)


def default_pairs() -> tuple[Pair, ...]:
    return (issue("first.test"),)


@dataclass(frozen=True)
class Tls:
    """The settings of a listener. pairs: its certificates; the first is for clients that name none."""

    pairs: Sequence[Pair] = field(default_factory=default_pairs)
    profile: str = "modern"
    strict_sni: bool = False
    tickets: int = 0
    only: bool = False

    def context(self) -> Any:
        """What the listener's codecs are made by."""
        from flashpol._tls import ServerContext

        return ServerContext(self.pairs, profile=self.profile, strict_sni=self.strict_sni, tickets=self.tickets)


def handshakes(block: Block) -> dict[str, int]:
    """How many handshakes were completed, by version, and why others failed; without those that did not occur."""
    counts = dict(zip(TLS_VERSIONS, block.all("handshakes"), strict=True))
    counts |= dict(zip(HANDSHAKE_FAILURES, block.all("handshake_failures"), strict=True))
    return {name: count for name, count in counts.items() if count}
