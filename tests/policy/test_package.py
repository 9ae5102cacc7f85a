"""The package as its users meet it: documented, light, and pure."""

import doctest
import subprocess
import sys
from pathlib import Path

import flashpol.policy


def test_the_documented_examples_run() -> None:
    result = doctest.testmod(flashpol.policy)
    assert result.attempted > 0
    assert result.failed == 0


def test_needs_neither_gevent_nor_compiled_code() -> None:
    code = (
        "import flashpol.policy, sys;"
        "heavy = {'gevent', 'flashpol._fastpath', 'prometheus_client'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(flashpol.policy.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
