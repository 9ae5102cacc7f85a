"""``python tests/memcheck.py TEST …``: pytest under valgrind's memcheck, judged by errors of our extensions.

Memcheck reports much in CPython and gevent, and different things on each machine. So there is no list of suppressions:
an error counts if one of our extensions is among its frames. Exit status: 0 without such errors, 1 with, 2 when the
tests fail or valgrind does not run.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

OURS = ("_fastpath", "_pump", "_tunnel")
MOST = 10  # errors that are printed
SECONDS = 1200


def errors(report: Path) -> list[str]:
    """The errors of one XML report that have one of our extensions among their frames."""
    found = []
    for error in ET.parse(report).getroot().iter("error"):
        frames = [
            " ".join(frame.findtext(part) or "" for part in ("fn", "file", "line", "obj"))
            for frame in error.iter("frame")
        ]
        objects = [frame.findtext("obj") or "" for frame in error.iter("frame")]
        if any(ours in each for ours in OURS for each in objects):
            what = error.findtext("what") or error.findtext("xwhat/text") or ""
            found.append("\n    ".join([f"{error.findtext('kind')}: {what}", *frames[:12]]))
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = ["valgrind", "--xml=yes", f"--xml-file={report}", "--child-silent-after-fork=yes", "--num-callers=20"]
        command += ["--leak-check=full", "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite"]
        command += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]
        environment = {**os.environ, "PYTHONMALLOC": "malloc"}
        try:
            done = subprocess.run(command, env=environment, timeout=SECONDS, check=False)
            found = errors(report)
        except (OSError, subprocess.TimeoutExpired, ET.ParseError) as error:
            print(f"memcheck: {error}", file=sys.stderr)
            return 2
    for error in found[:MOST]:
        print(error)
    print(f"memcheck: {len(found)} errors with our extensions among their frames")
    return 2 if done.returncode else 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
