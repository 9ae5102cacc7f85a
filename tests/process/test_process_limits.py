"""Limits of descriptors and memory, tried in children of the test."""

import os
import resource

import pytest

from flashpol.process.limits import MAX_FILES, count_files, raise_file_limit, spare_memory
from testkit.processes import forked, status


def test_raise_file_limit_raises_the_soft_limit_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    def main() -> None:
        raise_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(hard, MAX_FILES) if hard >= 0 else MAX_FILES, hard)

    try:
        with forked(main):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 256
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_count_files_without_proc_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(_: str) -> list[str]:
        raise FileNotFoundError

    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    seen = count_files()
    assert seen > 2
    monkeypatch.setattr(os, "listdir", nowhere)
    assert count_files() == seen


def test_spare_memory_under_a_limit_is_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spare_memory() is None
    usual = int(status(os.getpid())["VmSize"].split()[0]) << 10
    monkeypatch.setattr(resource, "getrlimit", lambda _: (usual + (64 << 20),) * 2)
    spare = spare_memory()
    assert spare is not None
    assert abs(spare - (64 << 20)) < 16 << 20
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20,) * 2)
    assert spare_memory() == 0
