"""Imports run downwards. The floors are written once, in docs/architecture.md, and compared here with every import."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "flashpol"
CYTHON = (".pyx", ".pxd", ".pxi")
FLOORS_BLOCK = re.compile(r"^```floors\n(.*?)^```", re.M | re.S)
CYTHON_IMPORT = re.compile(r"^\s*from\s+(flashpol[\w.]*)\s+c?import\s+(\w+|\()|^\s*c?import\s+(flashpol[\w.]*)", re.M)
CYTHON_INCLUDE = re.compile(r"""^\s*include\s+["'](.+?)["']""", re.M)


class Import(NamedTuple):
    source: Path
    target: str  # a unit


def read_floors(text: str) -> dict[str, int]:
    """Unit -> number of its floor, the lowest 0. A unit is a package or a module directly below flashpol."""
    [block] = FLOORS_BLOCK.findall(text)
    lines = block.strip().splitlines()
    return {unit: number for number, line in enumerate(reversed(lines)) for unit in line.split()}


FLOORS = read_floors((ROOT / "docs" / "architecture.md").read_text())


def unit_of(parts: tuple[str, ...]) -> str:
    """The unit that a dotted name belongs to, given as its parts below flashpol: `_native` has one for each folder."""
    parts = tuple(part for part in parts if part != "__init__") or ("__init__",)
    return "/".join(parts[:2]) if parts[0] == "_native" else parts[0]


def unit_of_file(path: Path) -> str:
    return unit_of(path.relative_to(PACKAGE).with_suffix("").parts)


def python_imports(path: Path) -> Iterator[str]:
    """Dotted names that a Python file imports, also inside functions."""
    package = ("flashpol", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> Iterator[Import]:
    if path.suffix == ".py":
        names = list(python_imports(path))
    else:
        text = path.read_text()
        names = [f"{module}.{name}" if module else whole for module, name, whole in CYTHON_IMPORT.findall(text)]
        for included in CYTHON_INCLUDE.findall(text):
            yield Import(path, unit_of_file((path.parent / included).resolve()))
    for name in names:
        package, _, rest = name.partition(".")
        if package == "flashpol":
            yield Import(path, unit_of(tuple(rest.split(".")) if rest else ()))


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", *CYTHON))


def upward(found: Import) -> bool:
    """Whether an import leaves its unit for one on the same floor or above."""
    source = unit_of_file(found.source)
    return source != found.target and FLOORS[found.target] >= FLOORS[source]


def test_floors_name_every_unit_of_the_package() -> None:
    assert {unit_of_file(path) for path in sources()} <= FLOORS.keys()


def test_imports_of_every_source_run_downwards() -> None:
    broken = {
        f"{found.source.relative_to(ROOT)} imports {found.target}"
        for path in sources()
        for found in imports_of(path)
        if upward(found)
    }
    assert sorted(broken) == []


@pytest.mark.parametrize(
    ("name", "text", "targets"),
    [
        ("admin/x.py", "import flashpol.policy.model", ["policy"]),
        ("admin/x.py", "def f():\n    from flashpol import hub, _pump", ["hub", "_pump"]),
        ("admin/page/x.py", "from ..context import a\nfrom ...log import b", ["admin", "log"]),
        ("admin/x.py", "import os\nfrom flashpolicy import a", []),
        ("_pump.pyx", "from flashpol._native.relay.state cimport (\n    CLIENT)", ["_native/relay"]),
        ("_pump.pyx", 'include "_native/relay/close.pxi"', ["_native/relay"]),
        ("_native/relay/x.pxi", "cimport flashpol._native.common.system", ["_native/common"]),
        ("_native/relay/x.pxi", 'include "../common/poller.pxi"', ["_native/common"]),
    ],
)
def test_imports_of_a_source_are_all_found(
    name: str, text: str, targets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert [found.target for found in imports_of(path)] == targets


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ("worker", "counters", False),
        ("worker", "worker", False),
        ("counters", "worker", True),
        ("worker", "admin", True),
    ],
)
def test_upward_by_floors_of_both_ends(source: str, target: str, expected: bool) -> None:
    assert upward(Import(PACKAGE / source / "x.py", target)) == expected


def test_names_of_test_files_are_unique() -> None:
    """pytest imports them by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
