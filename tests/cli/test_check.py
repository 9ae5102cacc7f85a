"""flashpol check: what it prints, its JSON, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flashpol.cli.main import main

CLEAN = '<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
NOTED = CLEAN.replace('"*"', '"www.example.com"')
WARNED = CLEAN.replace("1935", "*")
BROKEN = CLEAN.replace("1935", "90-80")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"clean": CLEAN, "noted": NOTED, "warned": WARNED, "broken": BROKEN}.items():
        (tmp_path / f"{name}.xml").write_text(text)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.xml").write_text(BROKEN)
    (tmp_path / "folder" / "a.XML").write_text(CLEAN)
    (tmp_path / "folder" / "notes.txt").write_text("no policy")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "summary"),
    [
        (["clean.xml"], 0, "1 file: nothing found"),
        (["noted.xml"], 0, "1 file: 1 note"),
        (["warned.xml"], 0, "1 file: 1 warning"),
        (["broken.xml"], 1, "1 file: 1 error"),
        (["--strict", "clean.xml"], 0, "1 file: nothing found"),
        (["--strict", "noted.xml"], 1, "1 file: 1 note"),
        (["--strict", "--client", "flash", "noted.xml"], 0, "1 file: nothing found"),
        (["--client", "unity", "noted.xml"], 1, "1 file: 1 error"),
        (["--client", "unity", "--client", "all", "noted.xml"], 0, "1 file: 1 note"),
        (["--served-from", "943", "--client", "flash", "clean.xml"], 0, "1 file: 1 warning"),
        (["clean.xml", "warned.xml", "broken.xml"], 1, "3 files: 1 error, 1 warning"),
        (["folder"], 1, "2 files: 1 error"),
        (["none.xml", "broken.xml"], 2, "2 files: 1 error, 1 cannot be read"),
        (["empty"], 2, "1 file: 1 cannot be read"),
        (["a\0b"], 2, "1 file: 1 cannot be read"),
    ],
)
def test_check_exit_status_and_summary(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, summary: str
) -> None:
    assert main(["check", *arguments]) == status
    assert capsys.readouterr().out.splitlines()[-1] == summary


def test_check_prints_line_caret_and_advice(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "broken.xml"])
    assert capsys.readouterr().out.splitlines()[:4] == [
        'broken.xml:1:62: error FP409 reversed-range: the range "90-80" is reversed',
        f"  1 | {BROKEN}",
        "    | " + " " * 61 + "^",
        '    = write "80-90" [flash, lightspark, unity]',
    ]


def test_check_unreadable_file_is_one_line_on_stderr(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", "none.xml", "empty"])
    assert capsys.readouterr().err.splitlines() == [
        "flashpol check: none.xml: cannot be read: No such file or directory",
        "flashpol check: empty: cannot be read: no policy in this folder: put *.xml files there, or name a file",
    ]


def test_check_json_document(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--json", "broken.xml", "none.xml"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "version": 1,
        "files": [
            {
                "file": "broken.xml",
                "error": None,
                "findings": [
                    {
                        "code": "FP409",
                        "name": "reversed-range",
                        "severity": "error",
                        "message": 'the range "90-80" is reversed',
                        "instead": 'write "80-90"',
                        "clients": ["flash", "lightspark", "unity"],
                        "line": 1,
                        "column": 62,
                        "source": BROKEN,
                        "caret": 61,
                    }
                ],
            },
            {"file": "none.xml", "error": "No such file or directory", "findings": []},
        ],
        "summary": {"files": 2, "errors": 1, "warnings": 0, "notes": 0, "unreadable": 1},
    }


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["check", "--client", "x", "a"], ["check", "--served-from", "0", "a"], ["check", "--served-from", "a"]],
)
def test_check_bad_arguments_are_one_line_on_stderr(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def check(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "flashpol", "check", *arguments]
    return subprocess.run(command, capture_output=True, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_check_reads_standard_input() -> None:
    done = check("-", input=BROKEN.encode())
    assert done.returncode == 1
    assert done.stdout.startswith(b"<stdin>:1:62: error")


def test_check_on_an_ascii_terminal_replaces_characters() -> None:
    text = "<cross-domain-policy><allow-access-from domain=\u201c*\u201d/></cross-domain-policy>"
    done = check("-", input=text.encode(), env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert b"domain=?*?" in done.stdout
    assert done.stderr == b""
