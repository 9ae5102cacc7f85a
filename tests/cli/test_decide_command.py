"""flashpol decide as operators run it: exit statuses, what it prints, what it refuses."""

import json
import os
from pathlib import Path

import pytest

from testkit.processes import call, one_line, run

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
def test_decide_exits_with_0_only_if_every_client_allows(file: Path, arguments: tuple[str, ...], status: int) -> None:
    done = call("decide", file, *FROM, *arguments)
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


def test_decide_with_json_prints_a_document(file: Path) -> None:
    done = run("decide", file, *FROM, "--port", "1935", "--client", "all", "--json")
    answer = json.loads(done.stdout)
    keys = ["version", "file", "from", "port", "served_from", "local", "sandbox", "allowed", "decisions"]
    assert list(answer) == keys
    assert (answer["file"], answer["port"], answer["served_from"]) == (str(file), 1935, None)
    assert answer["allowed"] is False
    assert [d["client"] for d in answer["decisions"]] == ["flash", "lightspark", "unity", "silverlight", "ruffle"]
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
        ("<a", (*FROM, "--port", "80"), ("policy.xml:1:1: ",)),
        (POLICY, (*FROM, "--port", "0"), ("'0' is not a port",)),
        (POLICY, (*FROM, "--port", "x"), ("--port", "'x'")),
        (POLICY, (*FROM,), ("--port",)),
        (POLICY, ("--port", "80"), ("--from", "--sandbox")),
        (POLICY, ("--port", "80", "--sandbox", "remote"), ("--from",)),
        (POLICY, ("--port", "80", "--sandbox", "garden"), ("'garden'", "choose from")),
        (POLICY, ("--port", "80", "--sandbox", "projector", "--client", "unity"), ("unity runs no projector content",)),
        (POLICY, (*FROM, "--port", "80", "--expect", "maybe"), ("'maybe'", "choose from")),
        (POLICY, (*FROM, "--port", "80", "-c", "x.toml"), ("one policy file or folder, or -c",)),
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
    message = one_line(call("decide", path, *arguments), "flashpol decide")
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


# ------------------------------------------------------------------------------ expectations, sandboxes, folders, files


@pytest.mark.parametrize(
    ("port", "clients", "expected", "status"),
    [
        ("1935", ("flash",), "allowed", 0),
        ("1935", ("flash",), "denied", 1),
        ("81", ("flash",), "denied", 0),
        ("81", ("flash",), "allowed", 1),
        ("8050", ("flash", "lightspark"), "allowed", 1),
        ("8050", ("flash", "lightspark"), "denied", 1),
        ("81", ("flash", "lightspark"), "denied", 0),
    ],
)
def test_decide_expect_exits_with_0_only_if_every_client_does_it(
    file: Path, port: str, clients: tuple[str, ...], expected: str, status: int
) -> None:
    named = [argument for client in clients for argument in ("--client", client)]
    assert call("decide", file, *FROM, "--port", port, *named, "--expect", expected).returncode == status


@pytest.mark.parametrize("expected", ["allowed", "denied"])
def test_decide_expect_of_an_unusable_policy_exits_with_2(tmp_path: Path, expected: str) -> None:
    assert call("decide", tmp_path / "mistyped.xml", *FROM, "--port", "80", "--expect", expected).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--sandbox", "projector"), 0, ["flash: allowed", "  no policy needed: the content of a projector"]),
        (("--from", "app:/Main.swf"), 0, ["flash: allowed", "  no policy needed: the AIR application sandbox"]),
        (("--from", "app:/Main.swf", "--client", "all"), 0, ["flash: allowed", "  no policy needed"]),
        (("--sandbox", "local-with-filesystem"), 1, ["flash: denied", "  blocked whatever the policy says"]),
        (("--from", "file:///x.swf", "--sandbox", "local-trusted"), 0, ["flash: allowed", "  no policy needed"]),
        (("--sandbox", "standalone", "--client", "all"), 0, ["unity: allowed", "  no policy needed"]),
        (("--sandbox", "local-with-networking"), 1, ["flash: denied", "  no grant is for content from file:///"]),
    ],
)
def test_decide_sandbox_of_content_that_is_not_from_the_web(
    file: Path, arguments: tuple[str, ...], status: int, words: list[str]
) -> None:
    done = call("decide", file, "--port", "81", *arguments)
    assert (done.returncode, done.stderr) == (status, "")
    lines = done.stdout.splitlines()
    assert [line.startswith(each) for line, each in zip(lines, words, strict=False)] == [True] * len(words)


def test_decide_folder_asks_the_merge_that_the_server_serves(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    for name, port in (("games", "1935"), ("chat", "6667")):
        (folder / f"{name}.xml").write_text(POLICY.replace("1935,8000-8100", port))
    for port in ("1935", "6667"):
        done = run("decide", folder, *FROM, "--port", port)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{folder} (merged):3:1: " in done.stdout
    assert run("decide", folder, *FROM, "--port", "80").returncode == 1
    (folder / "bad.xml").write_text("bad")
    assert f"{folder}/bad.xml:1:1: " in one_line(run("decide", folder, *FROM, "--port", "80"), "flashpol decide")


SILVERLIGHT = (
    '<access-policy><cross-domain-access><policy><allow-from><domain uri="*"/></allow-from><grant-to>'
    '<socket-resource port="4502" protocol="tcp"/></grant-to></policy></cross-domain-access></access-policy>'
)


def test_decide_configuration_asks_each_listener_by_its_port_and_dialect(tmp_path: Path, file: Path) -> None:
    (tmp_path / "silverlight.xml").write_text(SILVERLIGHT)
    (tmp_path / "flashpol.toml").write_text(
        '[policies.games]\nfile = "policy.xml"\n[policies.chat]\ngrants = [{domain = "*", ports = "4502"}]\n'
        '[policies.light]\nfile = "silverlight.xml"\n'
        '[[listeners]]\nname = "master"\naddress = "127.0.0.1:843"\npolicy = "games"\n'
        '[[listeners]]\nname = "chat"\naddress = "127.0.0.1:25"\npolicy = "chat"\n'
        '[[listeners]]\naddress = "127.0.0.1:943"\ndialect = "silverlight"\npolicy = "light"\n'
    )
    config = ("-c", tmp_path / "flashpol.toml", *FROM, "--port", "4502")
    done = run("decide", *config)
    assert (done.returncode, done.stderr) == (1, "")
    assert [line for line in done.stdout.splitlines() if not line.startswith(" ") and line] == [
        "listener master, port 843",
        "flash: denied",
        "listener chat, port 25",
        "flash: denied",
        "listener 127.0.0.1:943, port 943",
        "silverlight: allowed",
    ]
    policies = json.loads(run("decide", *config, "--json").stdout)["policies"]
    assert [each["listener"] for each in policies] == ["master", "chat", "127.0.0.1:943"]
    assert [each["decisions"][0]["allowed"] for each in policies] == [False, False, True]
    assert "fetches no policy from port 25" in policies[1]["decisions"][0]["reason"]


def test_decide_text_that_a_client_accepts_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "policy.xml"
    path.write_text(
        '<cross-domain-policy><comment>hello</comment><allow-access-from domain="*" to-ports="80"/>'
        "</cross-domain-policy>"
    )
    assert run("decide", path, *FROM, "--port", "80", "--client", "lightspark").returncode == 0
    done = run("decide", path, *FROM, "--port", "80")
    assert (done.returncode, done.stderr) == (1, "")
    assert 'the text "hello" between elements' in done.stdout


def test_decide_from_an_empty_text_is_an_error(file: Path) -> None:
    done = run("decide", file, "--from", "", "--port", "80")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'the content "" is empty' in done.stderr


# ---------------------------------------------------------------------------------- Ruffle, by a configuration's paths

WEBSOCKET = """
[policies.games]
grants = [{domain = "*", ports = "7000-17002"}]
[[listeners]]
name = "listed"
address = "127.0.0.1:17000"
policy = "games"
upstream = "127.0.0.1:7001"
[[listeners.websocket]]
path = "/chess"
port = 17002
origins = ["https://*.games.example.com"]
[[listeners.websocket]]
path = "/arena"
[[listeners]]
name = "plain"
address = "127.0.0.1:17001"
policy = "games"
"""


def ruffle(folder: Path, *arguments: str, config: str = WEBSOCKET) -> tuple[int, list[str]]:
    """The exit status, and the lines of the verdicts and the reasons."""
    (folder / "flashpol.toml").write_text(config)
    done = run("decide", "-c", folder / "flashpol.toml", "--client", "ruffle", *arguments)
    assert done.stderr == ""
    return done.returncode, [line.strip() for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("content", "port", "status"),
    [
        ("https://localhost", "17002", 1),
        ("https://a.games.example.com/page.html", "17002", 0),
        ("https://a.games.example.com:8443", "17002", 1),
        ("http://a.games.example.com", "17002", 1),
        ("https://localhost", "17000", 0),
        ("file:///game.swf", "17000", 0),
        ("file:///game.swf", "17002", 1),
        ("null", "17002", 1),
        ("https://a.games.example.com", "17001", 1),
        ("https://a.games.example.com", "7001", 1),
    ],
)
def test_decide_ruffle_asks_the_paths_for_the_port(tmp_path: Path, content: str, port: str, status: int) -> None:
    found, lines = ruffle(tmp_path, "--from", content, "--port", port)
    assert (found, "ruffle: allowed" in lines) == (status, status == 0)
    expected = ("allowed", "denied")[status]
    assert ruffle(tmp_path, "--from", content, "--port", port, "--expect", expected)[0] == 0


def test_decide_ruffle_says_why_and_what_no_path_is_for(tmp_path: Path) -> None:
    _, lines = ruffle(tmp_path, "--from", "https://localhost", "--port", "17002")
    assert lines[1:3] == [
        "ruffle: denied",
        'WebSocket path /chess of listener listed: Origin "https://localhost" may not connect to port 17002: '
        "origins lists others",
    ]
    assert lines[-1] == "no WebSocket path of listener plain is for port 17002: it has no websocket"
    _, lines = ruffle(tmp_path, "--from", "https://localhost", "--port", "80")
    assert lines[2] == "no WebSocket path of listener listed is for port 80: its paths are for 17000, 17002"


def test_decide_ruffle_of_a_domain_says_that_the_scheme_matters(tmp_path: Path) -> None:
    status, lines = ruffle(tmp_path, "--from", "a.games.example.com", "--port", "17002")
    assert status == 1
    assert 'Origin "http://a.games.example.com" may not connect' in lines[2]
    assert "https://a.games.example.com may: write the URL of the page" in lines[2]


def test_decide_ruffle_of_a_path_that_asks_the_policy_shows_its_line(tmp_path: Path, file: Path) -> None:
    config = WEBSOCKET.replace('grants = [{domain = "*", ports = "7000-17002"}]', f'file = "{file}"')
    status, lines = ruffle(tmp_path, *FROM, "--port", "17000", config=config)
    assert status == 1
    assert lines[2].startswith(f"{file}:3:54: WebSocket path /arena of listener listed: Origin ")
    assert lines[3].startswith("3 | ")
    assert "Unexpected response code: 403" in lines[5]


def test_decide_ruffle_keeps_listeners_with_other_paths_apart(tmp_path: Path) -> None:
    more = '[[listeners]]\nname = "twin"\naddress = "127.0.0.2:17000"\npolicy = "games"\n'
    status, lines = ruffle(tmp_path, "--from", "https://localhost", "--port", "17000", config=WEBSOCKET + more)
    assert (status, lines.count("ruffle: allowed"), lines.count("ruffle: denied")) == (0, 1, 2)


def test_decide_ruffle_on_the_desktop_needs_no_path(tmp_path: Path) -> None:
    status, lines = ruffle(tmp_path, "--sandbox", "ruffle-desktop", "--port", "80")
    assert (status, lines.count("ruffle: allowed")) == (0, 2)


def test_decide_ruffle_of_a_policy_file_asks_the_policy(file: Path) -> None:
    assert run("decide", file, *FROM, "--port", "1935", "--client", "ruffle").returncode == 0
