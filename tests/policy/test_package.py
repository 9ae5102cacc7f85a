"""The package as its users meet it: documented, light, and pure."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import flashpol.policy


def test_the_documented_examples_run() -> None:
    result = doctest.testmod(flashpol.policy)
    assert result.attempted > 0
    assert result.failed == 0


def fresh(code: str) -> str:
    """What another interpreter prints."""
    root = Path(flashpol.policy.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_needs_neither_gevent_nor_compiled_code() -> None:
    heavy = "{'gevent', 'flashpol._fastpath', 'prometheus_client'}"
    assert fresh(f"from flashpol.policy import *; import sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_loads_what_is_asked_for_only() -> None:
    loaded = fresh(
        "import sys; before = set(sys.modules); import flashpol.policy;"
        "print(*sorted(set(sys.modules) - before - {'__future__'}))"
    ).split()
    ours = ["flashpol", "flashpol.policy", "flashpol.policy.decide", "flashpol.policy.lint", "flashpol.version"]
    assert [name for name in loaded if name.startswith("flashpol")] == ours
    assert not {"dataclasses", "enum", "re", "typing", "xml", "pyexpat"} & set(loaded)


@pytest.mark.parametrize("names_first", [True, False])
def test_every_name_is_itself(names_first: bool) -> None:
    """Whatever is loaded first, also where a submodule has a function's name."""
    modules = (
        "import flashpol.policy as p, pkgutil;"
        "[__import__(m.name) for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')]"
    )
    names = "from flashpol.policy import *"
    check = (
        "print(*(name for name in p.__all__ if vars(p)[name] is not globals()[name] or type(vars(p)[name]) is type(p)))"
    )
    assert fresh("\n".join([names, modules, check] if names_first else [modules, names, check])) == ""


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        flashpol.policy.nothing  # noqa: B018
