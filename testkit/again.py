"""Run pytest, and what has failed once more by itself: `python -m testkit.again ARGUMENTS OF PYTEST`.

Seven processes of tests share two processors, with the servers, browsers and proxies that they start, and one may be
late. A test that failed beside others and passes by itself is named in the output. More than `LIMIT` failures are no
accident, and are not run again.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

LIMIT = 5
SOME_FAILED = 1  # pytest's exit status; others are errors of its own


def run(arguments: Sequence[str]) -> int:
    """The exit status of pytest; of its second run if there was one."""
    with tempfile.TemporaryDirectory(prefix="pytest-cache-") as cache:
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}"]
        status = subprocess.call([*command, *arguments])
        path = Path(cache, "v/cache/lastfailed")
        failed = sorted(json.loads(path.read_bytes())) if path.exists() else []
        if status != SOME_FAILED or not 0 < len(failed) <= LIMIT:
            return status
        print(f"\n{len(failed)} failed; once more, by itself:", *failed, sep="\n  ", flush=True)
        return subprocess.call([*command, "-q", *failed])


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
