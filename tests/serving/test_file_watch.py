"""Watched files: what counts as a change, and when."""

import os
import pickle
import signal
import tracemalloc
from pathlib import Path

import pytest

from flashpol.config import ConfigError
from flashpol.serving.file_watch import BLOCK, FileWatch, Snapshot, digest, require_regular_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.xml"
    file.write_text("one")
    return file


def watching(*paths: Path) -> FileWatch:
    watch = FileWatch()
    watch.adopt(Snapshot.of(paths))
    return watch


def looks(watch: FileWatch, number: int = 4) -> list[bool]:
    return [watch.changed() for _ in range(number)]


def test_changed_without_a_change_is_false(file: Path) -> None:
    assert looks(watching(file)) == [False] * 4


@pytest.mark.parametrize("how", ["in place", "rename", "gone", "folder"])
def test_changed_is_true_once_when_the_file_has_come_to_rest(file: Path, how: str) -> None:
    watch = watching(file)
    if how == "in place":
        file.write_text("two")
    elif how == "rename":
        (file.parent / "new").write_text("two")
        (file.parent / "new").rename(file)
    else:
        file.unlink()
        if how == "folder":
            file.mkdir()
    assert looks(watch) == [False, True, False, False]


def test_names_after_a_change_are_the_files_that_differ(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    for name in ("a.xml", "b.xml"):
        (folder / name).write_text("one")
    watch = watching(folder)
    (folder / "b.xml").write_text("two")
    assert any(looks(watch, 2))
    assert watch.names == [str(folder / "b.xml")]
    (folder / "c.xml").write_text("new")
    assert any(looks(watch, 2))
    assert watch.names == [str(folder / "c.xml")]


def test_changed_while_a_file_goes_on_changing_is_false(file: Path) -> None:
    watch = watching(file)
    for length in range(1, 5):
        file.write_text("x" * length)
        assert not watch.changed()
    assert looks(watch, 2) == [True, False]


def test_changed_after_a_touch_or_the_same_content_is_false(file: Path) -> None:
    watch = watching(file)
    os.utime(file, (1, 1))
    assert looks(watch) == [False] * 4
    (file.parent / "new").write_text("one")
    (file.parent / "new").rename(file)
    assert looks(watch) == [False] * 4


def test_changed_after_a_change_that_was_undone_is_false(file: Path) -> None:
    watch = watching(file)
    file.write_text("two")
    assert not watch.changed()
    file.write_text("one")
    assert looks(watch) == [False] * 4


def test_changed_of_a_folder_notices_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    watch = watching(folder)
    (folder / "a.xml").write_text("a")
    assert looks(watch) == [False, True, False, False]
    (folder / "a.xml").write_text("b")
    assert looks(watch) == [False, True, False, False]
    (folder / "a.xml").rename(folder / "b.xml")
    assert looks(watch) == [False, True, False, False]
    (folder / "b.xml").unlink()
    assert looks(watch) == [False, True, False, False]


def test_changed_follows_the_symbolic_links_of_a_config_map(tmp_path: Path) -> None:
    """As kubelet does: policy.xml -> ..data/policy.xml, ..data -> ..2026_1, and ..data is replaced by a rename."""
    for name, text in (("..1", "one"), ("..2", "one"), ("..3", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.xml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.xml").symlink_to("..data/policy.xml")
    for paths in ((tmp_path / "policy.xml",), (tmp_path,)):
        watch = watching(*paths)
        for target, changed in (("..2", False), ("..3", True), ("..1", True)):
            (tmp_path / "..tmp").symlink_to(target)
            (tmp_path / "..tmp").rename(tmp_path / "..data")
            assert any(looks(watch)) == changed


def test_snapshot_of_fifos_and_devices_does_not_read_them(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    watch = watching(tmp_path / "pipe", tmp_path / "missing", Path("/dev/zero"))
    assert looks(watch) == [False] * 4


def test_snapshot_of_a_fifo_that_comes_between_look_and_open_does_not_wait(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_it_was = os.stat(file)
    before = digest([file])
    file.unlink()
    os.mkfifo(file)
    monkeypatch.setattr(os, "stat", lambda *_, **__: as_it_was)
    signal.alarm(10)  # instead of waiting for a writer without end
    try:
        assert digest([file]) != before
    finally:
        signal.alarm(0)


def test_digest_of_large_files_needs_little_memory_and_sees_each_byte(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(5 << 20))
    before = digest([file])
    tracemalloc.start()
    try:
        assert digest([file]) == before
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    for at in (0, BLOCK - 1, BLOCK, (5 << 20) - 1):
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(b"x")
        assert digest([file]) != before
        before = digest([file])


def test_look_in_another_process_changes_nothing_until_it_is_judged(file: Path) -> None:
    watch, other = watching(file), watching(file)
    file.write_text("two")
    first = pickle.loads(pickle.dumps(watch.look()))
    assert first.digest is None
    assert watch.look() == first
    assert [watch.judge(first), watch.judge(pickle.loads(pickle.dumps(watch.look())))] == [False, True]
    assert looks(other) == [False, True, False, False]


def test_require_regular_file_refuses_a_fifo_and_a_device_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a FIFO"), (Path("/dev/zero"), "a device")):
        with pytest.raises(ConfigError) as caught:
            require_regular_file(path)
        assert str(caught.value) == f"{path}: is {kind}; write a regular file, which a reload can read again"


def test_require_regular_file_leaves_files_folders_and_missing_names_alone(file: Path) -> None:
    for path in (file, file.parent, file.parent / "missing", Path("a\0b")):
        require_regular_file(path)
