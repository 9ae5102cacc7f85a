"""Watched files: what is a change, and when it counts."""

import os
from pathlib import Path

import pytest

from flashpol.serving.file_watch import Watch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "policy.xml"
    file.write_text("one")
    return file


def marked(*paths: Path) -> Watch:
    watch = Watch(lambda: paths)
    watch.mark()
    return watch


def looks(watch: Watch, number: int = 4) -> list[bool]:
    return [watch.changed() for _ in range(number)]


def test_nothing_changes(file: Path) -> None:
    assert looks(marked(file)) == [False] * 4


@pytest.mark.parametrize("how", ["in place", "rename", "gone", "folder"])
def test_a_change_counts_once_and_when_it_has_come_to_rest(file: Path, how: str) -> None:
    watch = marked(file)
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


def test_a_file_that_goes_on_changing_is_waited_for(file: Path) -> None:
    watch = marked(file)
    for length in range(1, 5):
        file.write_text("x" * length)
        assert not watch.changed()
    assert looks(watch, 2) == [True, False]


def test_a_touch_or_the_same_content_again_is_no_change(file: Path) -> None:
    watch = marked(file)
    os.utime(file, (1, 1))
    assert looks(watch) == [False] * 4
    (file.parent / "new").write_text("one")
    (file.parent / "new").rename(file)
    assert looks(watch) == [False] * 4


def test_there_and_back_is_no_change(file: Path) -> None:
    watch = marked(file)
    file.write_text("two")
    assert not watch.changed()
    file.write_text("one")
    assert looks(watch) == [False] * 4


def test_a_folder_of_fragments(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    watch = marked(folder)
    (folder / "a.xml").write_text("a")
    assert looks(watch) == [False, True, False, False]
    (folder / "a.xml").write_text("b")
    assert looks(watch) == [False, True, False, False]
    (folder / "a.xml").rename(folder / "b.xml")
    assert looks(watch) == [False, True, False, False]
    (folder / "b.xml").unlink()
    assert looks(watch) == [False, True, False, False]


def test_the_symbolic_link_of_a_config_map_is_swapped(tmp_path: Path) -> None:
    """As kubelet does: policy.xml -> ..data/policy.xml, ..data -> ..2026_1, and ..data is replaced by a rename."""
    for name, text in (("..1", "one"), ("..2", "one"), ("..3", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy.xml").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "policy.xml").symlink_to("..data/policy.xml")
    for paths in ((tmp_path / "policy.xml",), (tmp_path,)):
        watch = marked(*paths)
        for target, changed in (("..2", False), ("..3", True), ("..1", True)):
            (tmp_path / "..tmp").symlink_to(target)
            (tmp_path / "..tmp").rename(tmp_path / "..data")
            assert any(looks(watch)) == changed


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    watch = marked(tmp_path / "pipe", tmp_path / "missing", Path("/dev/zero"))
    assert looks(watch) == [False] * 4
