"""Which configurations need lines between workers, and how many descriptors those are."""

from types import SimpleNamespace

import pytest

from flashpol.config import Config
from flashpol.process.lines import MAX_GENERATIONS, count_line_files, needs_lines
from flashpol.supervisor.reload import MAX_DRAINING


def config(*rtmpt: bool, workers: int = 1) -> Config:
    """As much of one as matters here; with a listener for each value."""
    listeners = [SimpleNamespace(rtmpt=value) for value in rtmpt]
    return SimpleNamespace(listeners=listeners, server=SimpleNamespace(worker_count=workers))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("rtmpt", "needed"), [([False], False), ([True], True), ([False, True], True), ([False, False], False)]
)
def test_needs_lines_if_one_listener_has_rtmpt(rtmpt: list[bool], needed: bool) -> None:
    assert needs_lines(config(*rtmpt)) == needed


@pytest.mark.parametrize(("workers", "files"), [(1, 3), (64, 255)])
def test_count_line_files_is_one_for_each_other_worker_of_four_generations(workers: int, files: int) -> None:
    assert count_line_files(config(True, workers=workers)) == files
    assert count_line_files(config(False, workers=workers)) == 0


def test_max_generations_is_what_a_reload_allows() -> None:
    """Those that drain, and one that serves; while one starts, at most one less drains."""
    assert MAX_GENERATIONS == MAX_DRAINING + 1
