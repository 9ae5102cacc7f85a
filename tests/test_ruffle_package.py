"""Ruffle's package is fetched once, by npm, and only the expected one is used."""

from pathlib import Path

import pytest

from testkit.ruffle import FetchError, Missing, fetch_ruffle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "build" / "ruffle"


def npm(monkeypatch: pytest.MonkeyPatch, path: Path, script: str = "") -> None:
    """An npm of the test is the only program; without a script there is none."""
    path.mkdir()
    if script:
        (path / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(path))


def test_fetch_without_npm_says_what_to_install(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(monkeypatch, tmp_path / "bin")
    with pytest.raises(Missing, match="apt-get install npm"):
        fetch_ruffle(folder)


def test_fetch_that_npm_refuses_has_its_reason(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(monkeypatch, tmp_path / "bin", "echo 'npm ERR! network' >&2; exit 1")
    with pytest.raises(FetchError, match="npm ERR! network"):
        fetch_ruffle(folder)
    assert not folder.exists()


def test_package_with_another_hash_is_not_used(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # npm pack --silent --pack-destination FOLDER PACKAGE
    npm(monkeypatch, tmp_path / "bin", 'echo other > "$4/ruffle.tgz"')
    with pytest.raises(FetchError, match="another"):
        fetch_ruffle(folder)
    assert [*folder.parent.iterdir()] == []


def test_folder_that_is_there_needs_no_npm(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm(monkeypatch, tmp_path / "bin")
    folder.mkdir(parents=True)
    assert fetch_ruffle(folder) == folder
