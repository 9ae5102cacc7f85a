"""A firewall that makes the attackers vanish, in the run's own network namespace (`bench.isolation`)."""

import os
import shutil
import subprocess

from faults import FaultsError


class Firewall:
    """Drops packets to and from 127.16.0.0/12, the attackers. For the run's own network namespace only."""

    RULES = (
        "table inet faults {\n chain vanish {\n  type filter hook output priority 0;\n"
        "  ip daddr 127.16.0.0/12 drop\n  ip saddr 127.16.0.0/12 drop\n }\n}\n"
    )

    @staticmethod
    def available() -> bool:
        return _program() is not None

    def __enter__(self) -> None:
        self._nft("-f", "-", rules=self.RULES)

    def __exit__(self, *_: object) -> None:
        self._nft("delete", "table", "inet", "faults")

    @staticmethod
    def _nft(*arguments: str, rules: str = "") -> None:
        nft = _program()
        if nft is None:
            raise FaultsError("nft is not installed: apt-get install nftables")
        done = subprocess.run([nft, *arguments], input=rules, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode != 0:
            raise FaultsError(f"nft {' '.join(arguments)}: {done.stderr.strip()}")


def _program() -> str | None:
    return shutil.which("nft", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")
