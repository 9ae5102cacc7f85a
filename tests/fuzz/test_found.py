"""The fuzz targets with all seeds, and with every input that a fuzzer has found to break one."""

from pathlib import Path

import pytest

from flashpol._fastpath import RequestMatcher
from fuzz.targets import SEEDS, TARGETS

FOUND = SEEDS.parent / "found"
REQUEST = b"<policy-file-request/>"
CUTS = 8


def inputs(target: str, folders: tuple[Path, ...]) -> list[Path]:
    return [path for folder in (*folders, FOUND / target) if folder.is_dir() for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("target", "path"),
    [(name, path) for name, (_, folders) in TARGETS.items() for path in inputs(name, folders)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_target_with_a_known_input_does_not_raise(target: str, path: Path) -> None:
    TARGETS[target][0](path.read_bytes())


@pytest.mark.parametrize("path", inputs("recognise", (SEEDS / "recognise",)), ids=lambda path: path.name)
def test_request_matcher_in_pieces_and_whole_has_the_same_verdict(path: Path) -> None:
    data = path.read_bytes()
    terminated, cuts, stream = bool(data[0] & 1), data[1 : 1 + CUTS], data[1 + CUTS :]
    whole, pieces = RequestMatcher(terminated=terminated), RequestMatcher(terminated=terminated)
    verdict = whole.feed(stream)
    at = number = 0
    while at < len(stream):
        size = 1 + cuts[number % CUTS] % 32
        found = pieces.feed(stream[at : at + size])
        at, number = at + size, number + 1
    assert found == verdict
    assert pieces.consumed == whole.consumed
