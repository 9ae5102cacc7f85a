"""Packages of npm that tests and the demo use: each is fetched once into build/, and only what is expected is used."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 120  # for a download


class Missing(Exception):
    """There is neither the package nor npm; the message says what to do."""


class FetchError(Exception):
    """npm is there, but what it fetched, if anything, is not the package."""


@dataclass(frozen=True)
class Package:
    """name: without its scope. sha512: of the archive."""

    name: str
    version: str
    sha512: str
    scope: str = ""

    @property
    def folder(self) -> Path:
        return ROOT / "build" / f"{self.name}-{self.version}"

    def fetch(self, folder: Path | None = None) -> Path:
        """The folder with the package's files. It is fetched by npm if the folder is not there."""
        folder = folder or self.folder
        if folder.is_dir():
            return folder
        npm = shutil.which("npm")
        if npm is None:
            raise Missing(f"npm, which fetches {self.name.capitalize()}, is not installed: apt-get install npm")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{self.name}-") as name:
            made = Path(name)
            self._unpack(npm, made)
            try:
                (made / "package").rename(folder)
            except OSError:  # another process was faster
                if not folder.is_dir():
                    raise
        return folder

    def _unpack(self, npm: str, made: Path) -> None:
        package = f"{self.scope}{self.name}@{self.version}"
        try:
            subprocess.run(
                [npm, "pack", "--silent", "--pack-destination", str(made), package],
                check=True, capture_output=True, text=True, timeout=SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise FetchError(f"npm pack {package} takes more than {SECONDS} s") from None
        except subprocess.CalledProcessError as error:
            raise FetchError(f"npm pack {package} failed: {error.stderr.strip()}") from None
        [archive] = made.glob("*.tgz")
        if hashlib.sha512(archive.read_bytes()).hexdigest() != self.sha512:
            raise FetchError(f"npm fetched another {package} than the one that is expected here")
        with tarfile.open(archive) as tar:
            # Python 3.11 of Debian 12 has no filter. What the hash is of needs none.
            tar.extractall(made, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
