"""The certificate of a server under attack: self-signed, made by ``openssl`` for this run."""

import shutil
import subprocess
from pathlib import Path

from faults import FaultsError
from faults.hello import SERVER_NAME

NAME = "faults"  # of the certificate, in the configuration
RSA = "faults-rsa"
SECONDS = 30.0
KEYS = {NAME: ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], RSA: ["rsa:2048"]}


def make(folder: Path, name: str = NAME) -> tuple[Path, Path]:
    """Write NAME.pem and NAME.key. Returns their paths. Raises FaultsError."""
    if not (openssl := shutil.which("openssl")):
        raise FaultsError("openssl is not installed: apt-get install openssl")
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    done = subprocess.run(
        [
            openssl, "req", "-x509", "-nodes", "-days", "30", "-newkey", *KEYS[name], "-subj", f"/CN={SERVER_NAME}",
            "-addext", f"subjectAltName=DNS:{SERVER_NAME}", "-keyout", str(key), "-out", str(chain),
        ],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise FaultsError(f"openssl req: {done.stderr.strip()}")
    return chain, key
