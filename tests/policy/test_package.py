"""The package `flashpol.policy` as a library: its documented examples, its imports, its names."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

import flashpol.policy


def test_package_docstring_examples_run() -> None:
    result = doctest.testmod(flashpol.policy)
    assert result.attempted > 0
    assert result.failed == 0


def fresh(code: str) -> str:
    """What another interpreter prints."""
    root = Path(flashpol.policy.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_package_import_loads_neither_gevent_nor_compiled_code() -> None:
    heavy = "{'gevent', 'flashpol._fastpath', 'flashpol._pump', 'prometheus_client'}"
    assert fresh(f"import flashpol.policy, sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("names_first", [True, False])
def test_package_names_are_not_hidden_by_submodules_of_the_same_name(names_first: bool) -> None:
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


def test_package_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        flashpol.policy.nothing  # noqa: B018
