"""flashpol decide as operators run it: exit statuses, what it prints, what it refuses."""

import json
import os
from pathlib import Path

import pytest

from testkit.processes import one_line, run

POLICY = """<?xml version="1.0"?>
<cross-domain-policy>
\t<allow-access-from domain="*.example.com" to-ports="1935,8000-8100"/>
</cross-domain-policy>
"""
FROM = ("--from", "http://www.example.com/game.swf")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.xml"
    path.write_text(POLICY)
    return path


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--port", "1935"), 0),
        (("--port", "8100"), 0),
        (("--port", "81"), 1),
        (("--port", "8050", "--client", "lightspark"), 1),
        (("--port", "1935", "--client", "lightspark"), 0),
        (("--port", "1935", "--client", "all"), 1),
        (("--port", "8050", "--client", "lightspark", "--client", "flash"), 1),
        (("--port", "1935", "--client", "lightspark", "--client", "flash"), 0),
        (("--port", "1935", "--served-from", "5000"), 0),
        (("--port", "1935", "--served-from", "25"), 1),
    ],
)
def test_decide_exit_status(file: Path, arguments: tuple[str, ...], status: int) -> None:
    done = run("decide", file, *FROM, *arguments)
    assert (done.returncode, done.stderr) == (status, "")


def test_decide_prints_verdict_line_and_client_words(file: Path) -> None:
    assert run("decide", file, *FROM, "--port", "81").stdout.splitlines() == [
        "flash: denied",
        f'  {file}:3:54: port 81 is not in to-ports="1935,8000-8100", and in no other grant for www.example.com',
        '  3 |  <allow-access-from domain="*.example.com" to-ports="1935,8000-8100"/>',
        "    | " + " " * 53 + "^",
        "  it says: Error: Request for resource at xmlsocket://SERVER:81 by requestor from"
        " http://www.example.com/game.swf is denied due to lack of policy file permissions.",
        "  it says: #2048 security sandbox violation",
    ]


def test_decide_json_document(file: Path) -> None:
    done = run("decide", file, *FROM, "--port", "1935", "--client", "all", "--json")
    answer = json.loads(done.stdout)
    assert list(answer) == ["version", "file", "from", "port", "served_from", "local", "allowed", "decisions"]
    assert (answer["file"], answer["port"], answer["served_from"]) == (str(file), 1935, None)
    assert answer["allowed"] is False
    assert [d["client"] for d in answer["decisions"]] == ["flash", "lightspark", "unity", "silverlight"]
    assert list(answer["decisions"][0]) == ["client", "allowed", "reason", "line", "column", "client_words"]
    assert (answer["decisions"][0]["allowed"], answer["decisions"][0]["line"]) == (True, 3)


def test_decide_reads_standard_input() -> None:
    done = run("decide", "-", *FROM, "--port", "1935", input=POLICY)
    assert (done.returncode, "<stdin>:3:2: " in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, (*FROM, "--port", "80"), ("none.xml", "No such file")),
        ("", (*FROM, "--port", "80"), ("policy.xml", "the policy is empty")),
        ("<a", (*FROM, "--port", "80"), ("policy.xml", "line 1")),
        (POLICY, (*FROM, "--port", "0"), ("'0' is not a port",)),
        (POLICY, (*FROM, "--port", "x"), ("--port", "'x'")),
        (POLICY, (*FROM,), ("--port",)),
        (POLICY, ("--port", "80"), ("--from",)),
        (POLICY, ("--from", "a b", "--port", "80"), ("not a URL",)),
        (POLICY, (*FROM, "--port", "80", "--client", "safari"), ("'safari'", "choose from")),
    ],
)
def test_decide_unusable_input_is_one_line_on_stderr(
    tmp_path: Path, content: str | None, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    path = tmp_path / ("none.xml" if content is None else "policy.xml")
    if content is not None:
        path.write_text(content)
    message = one_line(run("decide", path, *arguments), "flashpol decide")
    for word in words:
        assert word in message


def test_decide_in_a_long_line_shows_a_part(tmp_path: Path) -> None:
    grants = '<allow-access-from domain="a.example" to-ports="80"/>' * 100
    path = tmp_path / "policy.xml"
    path.write_text(f'<cross-domain-policy>{grants}<allow-access-from domain="*" to-ports="81"/></cross-domain-policy>')
    _, _, line, caret, _ = run("decide", path, *FROM, "--port", "81").stdout.splitlines()
    assert len(line) < 130
    assert line[caret.index("^") :].startswith('<allow-access-from domain="*"')


def test_decide_output_is_printable_for_any_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.xml"
    path.write_bytes('<cross-domain-policy><!-- \u009b31m \u4e16 --><allow-access-from domain="\u4e16" to-ports="1"/>'
                     "</cross-domain-policy>".encode())  # fmt: skip
    done = run("decide", path, *FROM, "--port", "81", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.replace("\n", "").isprintable()
