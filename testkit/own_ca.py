"""Certificates for tests, made by the commands of docs/guide/tls.md, so that these are run as they are printed."""

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from testkit.polling import DEADLINE
from testkit.processes import ROOT

PAGE = ROOT / "docs" / "guide" / "tls.md"
HEADING = "A CA of your own"
DOCUMENTED = "games.example.com"  # the host of the page


def commands(heading: str = HEADING) -> list[str]:
    """The shell blocks of a section of the page."""
    [section] = [part for part in re.split(r"^#+ ", PAGE.read_text(), flags=re.M) if part.startswith(f"{heading}\n")]
    return re.findall(r"^```sh\n(.*?)^```", section, re.M | re.S)


class Pair(NamedTuple):
    """The files of one certificate."""

    chain: Path
    key: Path


class OwnCa:
    """A CA in a folder of its own. `root` is the certificate that clients trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority, self._ecdsa, self._rsa, self._check = commands()
        self._run(self._authority)
        self.root = folder / "ca.pem"

    def _run(self, script: str) -> None:
        done = subprocess.run(
            ["sh", "-euc", script], cwd=self.folder, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        assert done.returncode == 0, done.stderr

    def issue(self, host: str) -> tuple[Pair, Pair]:
        """An ECDSA and an RSA certificate for a host and for *.host."""
        for script in (self._ecdsa, self._rsa, self._check):
            self._run(script.replace(DOCUMENTED, host))
        made = []
        for name in ("games", "games-rsa"):
            pair = Pair(self.folder / f"{host}.{name}.pem", self.folder / f"{host}.{name}.key")
            for path in pair:
                (self.folder / f"{name}{path.suffix}").rename(path)
            made.append(pair)
        return made[0], made[1]
