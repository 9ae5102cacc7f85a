"""CPU beside peers against the last release: what is kept, what is printed, and the exit status."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError, releases
from bench import __main__ as command
from bench.report import Results, document
from flashpol.version import VERSION

RATIO = "flashpol / nginx"


def run_of(factor: float = 1.0, rounds: int = 5) -> dict[str, Any]:
    """A report whose ratios are `factor` times the usual ones."""
    results = Results()
    noise = [0.99, 1.0, 1.01, 0.995, 1.005][:rounds]
    results.add_spread("cpu, apart", "flashpol: CPU per reply", "ns", [7000 * factor * one for one in noise])
    results.add_spread("cpu, apart", RATIO, "ratio", [0.7 * factor * one for one in noise])
    results.add_spread("cpu, apart", "nginx / C epoll", "ratio", [1.2 * one for one in noise], better="")
    results.add_spread("relay", "flashpol / HAProxy: CPU of an echo", "ratio", [0.9 * one for one in noise])
    results.add_spread("relay", "flashpol / HAProxy: echo p50", "ratio", [1.0 * one for one in noise])
    return document({"cpu": "any"}, results)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the figures of releases are."""
    monkeypatch.setattr(releases, "FOLDER", tmp_path / "released")
    monkeypatch.setattr(releases.last, "__defaults__", (tmp_path / "released",))
    return tmp_path / "released"


def compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new: dict[str, Any], *options: str) -> int:
    path = tmp_path / "new.json"
    path.write_text(json.dumps(new))
    monkeypatch.setattr(sys, "argv", ["bench", "compare", str(path), *options])
    return command.main()


def test_kept_has_only_ratios_of_flashpols_cpu() -> None:
    found = releases.kept(run_of())
    assert [figure["name"] for figure in found["figures"]] == [RATIO, "flashpol / HAProxy: CPU of an echo"]
    assert set(found["samples"]) == {figure["key"] for figure in found["figures"]}
    assert (found["version"], found["machine"]) == (VERSION, {"cpu": "any"})


def test_kept_of_a_run_with_too_few_rounds_raises() -> None:
    with pytest.raises(BenchError, match="no ratio of CPU has 3 rounds"):
        releases.kept(run_of(rounds=2))


def test_last_is_the_highest_version(tmp_path: Path) -> None:
    assert releases.last(tmp_path) is None
    for name in ("0.9.0", "0.10.0", "0.2.0"):
        (tmp_path / f"{name}.json").touch()
    assert releases.last(tmp_path) == tmp_path / "0.10.0.json"
    (tmp_path / "next.json").touch()
    with pytest.raises(BenchError, match=r"next\.json: its name is not a version"):
        releases.last(tmp_path)


@pytest.mark.parametrize(
    ("factor", "options", "status", "lines", "worse"),
    [
        (1.3, (), 0, 3, 1),
        (1.3, ("--fail",), 1, 3, 1),
        (1.3, ("--threshold", "50", "--fail"), 0, 1, 0),
        (1.05, ("--fail",), 0, 1, 0),
        (1.0, ("--everything",), 0, 4, 0),
        (0.5, ("--fail",), 0, 1, 0),
    ],
    ids=["regression", "regression-fails", "threshold", "small", "everything", "better"],
)
def test_compare_with_the_release_prints_regressions_and_fails_only_if_told(
    factor: float, options: tuple[str, ...], status: int, lines: int, worse: int,
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    releases.write(run_of(), folder)
    assert compare(monkeypatch, tmp_path, run_of(factor), *options) == status
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    percent = 50 if "50" in options else 10
    assert printed[-1] == f"2 ratios of CPU compared with {VERSION}: {worse} worse by more than {percent} %"
    if worse:
        assert printed[1].startswith(f"cpu, apart: {RATIO} [ratio]")
        assert printed[1].endswith("worse")


def test_compare_without_figures_of_a_release_prints_one_line_and_succeeds(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(monkeypatch, tmp_path, run_of(), "--fail") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"bench: {folder} has no figures of a release to compare with: {releases.WRITE}"
    ]


def test_compare_of_two_reports_fails_only_if_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.json"
    old.write_text(json.dumps(run_of()))
    new = tmp_path / "worse.json"
    new.write_text(json.dumps(run_of(1.3)))
    for options, status in (([], 0), (["--fail"], 1)):
        monkeypatch.setattr(sys, "argv", ["bench", "compare", str(old), str(new), *options])
        assert command.main() == status
        assert capsys.readouterr().out.splitlines()[-1].startswith("4 figures compared: 2 worse")


@pytest.mark.parametrize(("fails", "status"), [(False, 0), (True, 2)])
def test_release_option_writes_the_figures_only_of_a_run_without_failures(
    fails: bool, status: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def scenario(settings: object, results: Results) -> None:
        results.add_spread("cpu, apart", RATIO, "ratio", [0.7, 0.71, 0.69])
        if fails:
            raise BenchError("a reply is missing")

    monkeypatch.setattr(releases.write, "__defaults__", (folder,))
    monkeypatch.setattr(command, "SCENARIOS", {"cpu": scenario})
    monkeypatch.setattr(command.isolation, "isolate", lambda: None)
    monkeypatch.setattr(sys, "argv", ["bench", "cpu", "--release"])
    assert command.main() == status
    captured = capsys.readouterr()
    assert (folder / f"{VERSION}.json").exists() is not fails
    assert "seconds: cpu 0; 0 in all" in captured.out
    assert ("are not kept" in captured.err) is fails
