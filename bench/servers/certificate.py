"""The certificate that all servers of a TLS scenario share: ECDSA P-256, signed by itself, made with `openssl`."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError

NAME = "bench.example"
COMMAND = (
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
    "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
)  # fmt: skip
SECONDS = 30


@dataclass(frozen=True)
class Certificate:
    """PEM files. both: chain and key in one file, as HAProxy wants them."""

    chain: Path
    key: Path
    both: Path


@contextmanager
def certificate() -> Iterator[Certificate]:
    """A fresh one, in a folder that only this user can read."""
    if missing():
        raise BenchError(f"no certificate: {missing()}")
    with tempfile.TemporaryDirectory(prefix="flashpol-bench-") as name:
        made = Certificate(*(Path(name, file) for file in ("chain.pem", "key.pem", "both.pem")))
        command = [*COMMAND, "-keyout", str(made.key), "-out", str(made.chain)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS)
        if done.returncode:
            raise BenchError(f"openssl made no certificate: {done.stderr.strip()}")
        made.both.write_bytes(made.chain.read_bytes() + made.key.read_bytes())
        made.both.chmod(0o600)
        yield made


def missing() -> str | None:
    """Why none can be made here, or None."""
    return None if shutil.which("openssl") else "the command openssl is not installed"
