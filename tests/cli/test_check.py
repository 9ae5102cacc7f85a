"""flashpol check: what it prints, its JSON, and its exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flashpol.cli.main import main
from testkit.certificates import in_days, make_ca

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


@pytest.mark.parametrize(
    ("arguments", "status", "summary"),
    [
        (["--strict", "--ignore", "FP702", "noted.xml"], 0, "1 file: nothing found"),
        (["--ignore", "fp409", "broken.xml"], 0, "1 file: nothing found"),
        (["--ignore", "FP604, FP409", "warned.xml", "broken.xml"], 0, "2 files: nothing found"),
        (["--ignore", "FP604", "--ignore", "FP702", "broken.xml", "noted.xml"], 1, "2 files: 1 error"),
    ],
)
def test_check_ignored_findings_do_not_count(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, summary: str
) -> None:
    assert main(["check", *arguments]) == status
    assert capsys.readouterr().out.splitlines()[-1] == summary


def test_check_ignore_of_an_unknown_code_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--ignore", "FP999", "clean.xml"]) == 2
    assert capsys.readouterr().err == (
        "flashpol check: --ignore 'FP999': there is no such finding; did you mean 'FP908'?\n"
    )


CONFIG = """
[policies.games]
file = "broken.xml"
[policies.chat]
grants = [{domain = "www.example.com", ports = "80"}]
[policies.all]
folder = "folder"
[policies.spare]
file = "clean.xml"
[[listeners]]
address = "127.0.0.1:8430"
policy = "games"
[[listeners]]
address = "127.0.0.2:8430"
policy = "games"
[[listeners]]
address = "127.0.0.1:8431"
policy = "chat"
[[listeners]]
address = "127.0.0.1:8432"
served_from = 843
policy = "all"
"""


def test_check_configuration_checks_each_policy_for_its_listeners(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "folder" / "b.xml").write_text(CLEAN.replace("1935", "843"))
    (files / "flashpol.toml").write_text(CONFIG)
    assert main(["check", "--json", "-c", "flashpol.toml"]) == 1
    found = {
        Path(each["file"]).name: [finding["code"] for finding in each["findings"]]
        for each in json.loads(capsys.readouterr().out)["files"]
    }
    assert found == {
        "broken.xml": ["FP409"],
        "policy chat": ["FP702", "FP508"],  # served from 8431, it grants port 80
        "a.XML": ["FP710"],
        "b.xml": ["FP710"],
        "folder (merged)": ["FP710"],
        "clean.xml": [],
    }


def test_check_prints_a_policy_of_two_ports_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listeners = "".join(f'[[listeners]]\naddress = "127.0.0.1:{port}"\npolicy = "media"\n' for port in (8431, 8432))
    path = tmp_path / "flashpol.toml"
    path.write_text(f'[policies.media]\ngrants = [{{domain = "*.example.com", ports = "1935"}}]\n{listeners}')
    assert main(["check", "-c", str(path)]) == 0
    found = capsys.readouterr().out
    assert found.count("FP702") == 1
    assert found.endswith("1 file: 1 note\n")


def test_check_configuration_judges_its_certificates(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("flashpol._tls", reason="built without OpenSSL")
    ca = make_ca(files)
    good, nameless = ca.issue("a.example"), ca.issue()
    expired = ca.issue("a.example", not_before=in_days(-9), not_after=in_days(-1))
    (files / "flashpol.toml").write_text(
        "[policies.p]\nfile = 'clean.xml'\n" + good.toml("good") + nameless.toml("nameless")
    )
    assert main(["check", "-c", "flashpol.toml"]) == 0
    finding = f"{nameless.chain}: has no name, so clients refuse it: have it issued with a subjectAltName"
    assert capsys.readouterr().out.splitlines() == [
        f"certificate nameless: warning: {finding}",
        "",
        "1 file, 2 certificates: 1 warning",
    ]
    assert main(["check", "--strict", "-c", "flashpol.toml"]) == 1
    with (files / "flashpol.toml").open("a") as file:
        file.write(expired.toml("expired"))
    capsys.readouterr()
    assert main(["check", "--json", "-c", "flashpol.toml"]) == 1
    document = json.loads(capsys.readouterr().out)
    one, two, three = document["certificates"]
    assert one == {"name": "good", "findings": [], "error": None}
    assert two == {"name": "nameless", "findings": [finding], "error": None}
    assert three["error"].startswith(f"{expired.chain}: expired on ")
    summary = document["summary"]
    assert (summary["certificates"], summary["errors"], summary["warnings"], summary["unreadable"]) == (3, 1, 1, 0)


@pytest.mark.parametrize("arguments", [[], ["-c", "flashpol.toml", "clean.xml"]])
def test_check_takes_files_or_a_configuration(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main(["check", *arguments]) == 2
    error = "flashpol check: FILE is missing: write policy files, or -c and a configuration file\n"
    assert capsys.readouterr().err == error


def test_check_unusable_configuration_is_one_line_on_stderr(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "flashpol.toml").write_text("[policies.games]\nfile = 1\n")
    assert main(["check", "-c", "flashpol.toml"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


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


def test_check_with_json_prints_a_document(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
        "certificates": [],
        "websocket_listeners": [],
        "summary": {"files": 2, "certificates": 0, "errors": 1, "warnings": 0, "notes": 0, "unreadable": 1},
    }


@pytest.mark.parametrize(
    "arguments",
    [["check", "--client", "x", "a"], ["check", "--served-from", "0", "a"], ["check", "--served-from", "a"]],
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


def test_check_of_a_configuration_reports_websocket_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.toml").write_text(
        '[policies.p]\ngrants = [{domain = "*.example.com", ports = "7001"}]\n'
        '[[listeners]]\nname = "games"\naddress = "127.0.0.1:843"\n'
        '[[listeners.websocket]]\npath = "/chess"\nport = 7001\nupstream = "127.0.0.1:7000"\n'
        '[[listeners.websocket]]\npath = "/go"\nport = 7002\nupstream = "127.0.0.1:7000"\n'
    )
    assert main(["check", "-c", str(tmp_path / "f.toml")]) == 0
    assert "\nlistener games: warning: the WebSocket path /go is refused to every page: " in capsys.readouterr().out
    assert main(["check", "--strict", "-c", str(tmp_path / "f.toml")]) == 1
    capsys.readouterr()
    main(["check", "--json", "-c", str(tmp_path / "f.toml")])
    data = json.loads(capsys.readouterr().out)
    [listener] = data["websocket_listeners"]
    assert listener["name"] == "games"
    assert len(listener["findings"]) == 1
    of_policies = sum(each["severity"] == "warning" for file in data["files"] for each in file["findings"])
    assert data["summary"]["warnings"] == of_policies + 1


BY_URL = '<cross-domain-policy>\n<allow-access-from domain="www.example.com"{}/>\n</cross-domain-policy>\n'


def test_check_by_url_has_the_rules_of_such_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "crossdomain.xml").write_text(BY_URL.format(""))
    assert main(["check", "crossdomain.xml"]) == 1
    assert "to-ports" in capsys.readouterr().out
    assert main(["check", "--strict", "--by-url", "crossdomain.xml"]) == 0
    (files / "crossdomain.xml").write_text(BY_URL.format(' to-ports="1935"'))
    assert main(["check", "--strict", "--by-url", "crossdomain.xml"]) == 1
    assert "FP901" in capsys.readouterr().out


@pytest.mark.parametrize("client", [(), ("--client", "flash"), ("--client", "silverlight")])
def test_check_configuration_checks_files_by_url(
    files: Path, capsys: pytest.CaptureFixture[str], client: tuple[str, ...]
) -> None:
    (files / "crossdomain.xml").write_text(BY_URL.format(' to-ports="1935"'))
    (files / "flashpol.toml").write_text(
        '[policies.games]\nfile = "clean.xml"\n[[listeners]]\naddress = "127.0.0.1:8430"\npolicy = "games"\n'
        'crossdomain_file = "crossdomain.xml"\n'
    )
    assert main(["check", "--json", "-c", "flashpol.toml", *client]) == int("silverlight" in client)
    [_, by_url] = json.loads(capsys.readouterr().out)["files"]
    assert Path(by_url["file"]).name == "crossdomain.xml"
    assert [finding["code"] for finding in by_url["findings"]] == ["FP901"]


def test_check_by_url_with_a_configuration_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "flashpol.toml").write_text(CONFIG)
    assert main(["check", "--by-url", "-c", "flashpol.toml"]) == 2
    assert "--by-url is about files" in capsys.readouterr().err
