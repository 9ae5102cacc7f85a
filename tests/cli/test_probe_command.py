"""flashpol probe: arguments, output formats, exit status, several hosts, --watch."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashpol.cli.probe import TLS_ONLY_CLIENTS
from flashpol.policy import CLIENTS
from flashpol.probe.tls.offers import TLS_CLIENTS
from testkit.certificates import make_ca
from testkit.polling import eventually
from testkit.processes import ROOT, Flashpol, command, free_port, one_line, run

CONFIGURATION = """
[policies.games]
grants = [{{domain = "*", ports = "1935"}}]
{certificate}
[[listeners]]
address = "127.0.0.1:0"
policy = "games"
tls = ["games"]
tls_profile = "flash"
"""
POLICY = '<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with Flashpol("--allow", "*:1935") as server:
        yield str(server.place[1])


@pytest.fixture
def asked(port: str) -> list[str]:
    """Arguments for the server, a closed port for Silverlight, and no judgement of a busy machine's speed."""
    return ["probe", "127.0.0.1", "--policy-port", port, "--silverlight-port", str(free_port()), "--ignore", "PB110"]


@pytest.fixture
def closed() -> list[str]:
    return ["probe", "127.0.0.1", "--policy-port", str(free_port()), "--silverlight-port", str(free_port())]


def test_probe_of_good_server_writes_text(asked: list[str]) -> None:
    done = run(*asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("127.0.0.1: nothing found\n")
    assert "\033" not in done.stdout


def test_probe_with_errors_exits_1(closed: list[str]) -> None:
    done = run(*closed)
    assert (done.returncode, done.stderr) == (1, "")
    assert "error PB106 no-policy: " in done.stdout
    assert run(*closed, "--ignore", "pb106,FP702").returncode == 0


def test_probe_with_json_writes_one_object(asked: list[str]) -> None:
    done = run(*asked, "--json")
    assert done.returncode == 0
    [host] = json.loads(done.stdout)["hosts"]
    assert (host["host"], host["ok"], host["findings"]) == ("127.0.0.1", True, [])


def test_probe_with_nagios_writes_one_line(asked: list[str], closed: list[str]) -> None:
    done = run(*asked, "--nagios")
    assert (done.returncode, done.stdout.count("\n"), done.stdout[:13]) == (0, 1, "FLASHPOL OK -")
    done = run(*closed, "--nagios")
    assert (done.returncode, done.stdout[:19]) == (2, "FLASHPOL CRITICAL -")


def test_probe_with_nagios_and_wrong_arguments_is_unknown() -> None:
    done = run("probe", "127.0.0.1", "--nagios", "--from", "http://a.example")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("FLASHPOL UNKNOWN - --from needs --port")


def test_probe_with_content_decides(asked: list[str], port: str) -> None:
    """The policy of port 843 grants 1935 only."""
    done = run(*asked, "--from", "http://www.example.com/a.swf", "--port", port)
    assert done.returncode == 1
    assert "error PB403 denied: flash does not let content from http://www.example.com/a.swf connect" in done.stdout


def test_probe_of_several_hosts_summarises(asked: list[str]) -> None:
    done = run(*asked[:2], "127.0.0.2", *asked[2:])
    assert done.returncode == 1
    assert done.stdout.startswith("127.0.0.1: ")
    assert "\n127.0.0.2: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 hosts: 1 error")
    assert done.stderr == ""  # progress is shown only on terminals


def test_probe_with_output_replaces_the_file(asked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "flashpol.prom"
    out.write_text("old")
    assert run(*asked, "--metrics", "-o", out).stdout == ""
    assert "\nflashpol_probe_success{" in out.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["flashpol.prom"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("games.example.com:843",), "write only its name or address"),
        (("http://games.example.com/",), "write only its name or address"),
        (("",), "write only its name or address"),
        (("127.0.0.1", "--from", "http://a.example"), "--from needs --port"),
        (("127.0.0.1", "--from", "a b", "--port", "1"), "--from: "),
        (("127.0.0.1", "--port", "0"), "is not a port from 1 to 65535"),
        (("127.0.0.1", "--location", "8430"), "write xmlsocket://HOST:PORT"),
        (("127.0.0.1", "--location", "xmlsocket://127.0.0.1:99999"), "write xmlsocket://HOST:PORT"),
        (
            ("127.0.0.1", "--location", "xmlsocket://other.example:843"),
            "a policy counts only for the host that serves it",
        ),
        (("127.0.0.1", "--ignore", "XX"), "--ignore 'XX': there is no such finding"),
        (("127.0.0.1", "--ignore", "PB110,FP70"), "--ignore 'FP70': there is no such finding; did you mean 'FP"),
        (("127.0.0.1", "--watch", "0"), "seconds from 1 to 86400"),
        (("127.0.0.1", "--json", "--nagios"), "not allowed with"),
        (("127.0.0.1", "--ca", "root.pem"), "--ca needs --tls"),
        (("127.0.0.1", "--server-name", "a.example"), "--server-name needs --tls"),
        (("127.0.0.1", "--tls", "--server-name", "a b"), "--server-name 'a b' is not a host name"),
        (("127.0.0.1", "--tls", "--server-name", "xmlsocket://a"), "is not a host name"),
        (("127.0.0.1", "--tls", "--server-name", "a..b"), "is not a host name"),
        (("127.0.0.1", "--tls", "--server-name", ""), "is not a host name"),
        (("127.0.0.1", "--tls", "--ca", "/nowhere/root.pem"), "--ca /nowhere/root.pem: No such file or directory"),
        (("127.0.0.1", "--tls", "--ca", "/dev/null"), "--ca /dev/null: there is no certificate in PEM in it"),
        (("127.0.0.1", "--client", "air"), "--client air needs --tls"),
        (("127.0.0.1", "--tls", "--client", "unity"), "--client unity has no TLS: with --tls write flash, air"),
        (("127.0.0.1", "--tls", "--client", "browser"), "--client browser needs --port"),
        ((), "the following arguments are required: HOST"),
        (("127.0.0.1", "--origin", "https://a.example"), "--origin needs --websocket"),
        (("127.0.0.1", "--websocket", "ws://a.example/"), "leave out HOST: the URL has it"),
        (("--websocket", "ws://a.example/", "--tls"), "leave out --tls: write wss:// for TLS"),
        (("--websocket", "ws://a.example/", "--port", "80"), "leave out --port: the URL has it"),
        (("--websocket", "ws://a.example/", "--from", "http://a.example/"), "write the page's origin with --origin"),
        (("--websocket", "ws://a.example/", "--server-name", "a.example"), "browsers send the host of the URL"),
        (("--websocket", "ws://a.example/", "--client", "flash"), "the client is Ruffle's browser"),
        (("--websocket", "ws://a.example/", "--location", "xmlsocket://a:1"), "Ruffle asks for no policy"),
        (("--websocket", "ws://a.example/", "--ca", "root.pem"), "--ca needs a URL with wss://"),
        (("--websocket", "wss://a.example/", "--ca", "/dev/null"), "there is no certificate in PEM in it"),
        (("--websocket", "a.example"), "--websocket 'a.example': write ws://HOST:PORT/PATH"),
        (("--websocket", ""), "--websocket '': write ws://HOST:PORT/PATH"),
        (("--websocket", "ws://a.example/", "--rtmp"), "--websocket is given, so leave out --rtmp"),
        (("--rtmp", "live"), "'live' counts as the application, so write HOST first"),
        (("--rtmp",), "the following arguments are required: HOST"),
        (("http://a.example", "--rtmp"), "--rtmp 'http://a.example': write HOST, HOST:PORT or rtmp://"),
        (("a.example", "--rtmp", "--port", "1935"), "leave out --port: write HOST:PORT"),
        (("a.example", "--rtmp", "--tls"), "leave out --tls: write rtmps://HOST"),
        (("a.example", "--rtmp", "--thorough"), "leave out --thorough"),
        (("a.example", "--rtmp", "--origin", "http://a.example"), "leave out --origin"),
        (("a.example", "--rtmp", "--ca", "root.pem"), "--ca needs rtmps://"),
        (("rtmps://a.example", "--rtmp", "--ca", "/dev/null"), "there is no certificate in PEM in it"),
        (("a.example", "--proxy", "http://a.example:3128"), "--proxy needs --rtmp"),
        (("rtmpt://a.example:80",), "'rtmpt://a.example:80' is a media server's address: add --rtmp"),
        (("rtmp://a.example/live/film", "--rtmp", "live"), "leave one of them out"),
        (("a.example", "--rtmp", "--proxy", "a.example"), "--proxy 'a.example': write http://HOST:PORT"),
        (("a.example:80", "--rtmp", "--proxy", "http://a.example:3128"), "write rtmpt://a.example:80 instead of a.ex"),
        (("rtmps://a.example", "--rtmp", "--proxy", "http://a.example:3128"), "--proxy carries RTMPT: write rtmpt://"),
        (("--websocket", "ws://a.example/", "--origin", "a.example"), "--origin 'a.example': write the origin"),
    ],
)
def test_probe_with_wrong_arguments_says_what_to_write(arguments: tuple[str, ...], said: str) -> None:
    assert said in one_line(run("probe", *arguments), "flashpol probe")


def test_probe_with_watch_prints_changes(asked: list[str], tmp_path: Path) -> None:
    policy = tmp_path / "policy.xml"
    policy.write_text(POLICY)
    out = tmp_path / "out"
    with Flashpol("--policy", policy) as server, out.open("wb") as writable:
        asked[asked.index("--policy-port") + 1] = str(server.place[1])
        asked += ["--watch", "1", "--ignore", "PB214"]  # a probe that the reload meets half way sees both policies
        # A shell that starts the tests in the background makes them and their children ignore SIGINT.
        heard = ["env", "--default-signal=INT", *command(*asked)]
        watching = subprocess.Popen(
            heard, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=writable, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda: "connections in" in out.read_text(), "the first report")
            watching.send_signal(signal.SIGHUP)  # without a terminal it is meant for the server
            policy.write_text(POLICY.replace("1935", "1936,1937"))
            server.process.send_signal(signal.SIGHUP)
            eventually(lambda: " 127.0.0.1: + policy at 127.0.0.1:" in out.read_text(), "the new policy")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(5) == 130
        finally:
            watching.kill()
            watching.wait()
    changed = out.read_text().split("connections in")[1].splitlines()[1:]
    assert [line.split(": ", 1)[1][:8] for line in changed] == ["- policy", "+ policy"]


def test_probe_of_several_hosts_shows_progress_on_a_terminal(asked: list[str]) -> None:
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.Popen(
            command(*asked[:2], "127.0.0.2", *asked[2:]), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:  # the end of a terminal
            pass
        assert done.wait(10) == 1
    assert b"0 of 2 hosts, 0 with errors" in shown
    assert b"2 of 2 hosts, 1 with errors" in shown


def test_probe_on_a_terminal_uses_colour(asked: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        done = subprocess.Popen(command(*asked), cwd=ROOT, stdout=theirs, env=environment)
        os.close(theirs)
        shown = b""
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:
            pass
        assert done.wait(10) == 0
    assert b"\033[1m127.0.0.1\033[0m" in shown


# --------------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def inside_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Arguments for a server whose certificate is for games.example.com, and whose CA is known."""
    pytest.importorskip("flashpol._tls", reason="built without libssl-dev")
    folder = tmp_path_factory.mktemp("tls")
    files = make_ca(folder / "ca").issue("games.example.com", intermediate=True)
    (folder / "flashpol.toml").write_text(CONFIGURATION.format(certificate=files.toml()))
    with Flashpol("-c", folder / "flashpol.toml", listen=()) as server:
        port = str(server.place[1])
        yield ["probe", "127.0.0.1", "--tls", "--policy-port", port, "--ca", str(files.ca), "--ignore", "PB110"]


def test_probe_inside_tls_of_good_server_writes_text(inside_tls: list[str]) -> None:
    done = run(*inside_tls, "--server-name", "GAMES.example.com")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("127.0.0.1: nothing found\n")
    assert "certificate for games.example.com, until " in done.stdout


def test_probe_inside_tls_by_address_says_how_to_name_the_host(inside_tls: list[str]) -> None:
    done = run(*inside_tls)
    assert done.returncode == 1
    assert (
        "error PB514 certificate-name: the certificate is not for 127.0.0.1: it is for games.example.com" in done.stdout
    )
    assert "write it with --server-name" in done.stdout


def test_probe_inside_tls_without_the_ca_does_not_know_it(inside_tls: list[str]) -> None:
    at = inside_tls.index("--ca")
    done = run(*inside_tls[:at], *inside_tls[at + 2 :], "--server-name", "games.example.com", "--nagios")
    assert "PB517 " in done.stdout or done.stdout.startswith("FLASHPOL OK")  # a machine without any CA cannot know


def test_clients_of_the_arguments_are_those_of_the_probe() -> None:
    assert tuple(client for client in TLS_CLIENTS if client not in CLIENTS) == TLS_ONLY_CLIENTS


# --------------------------------------------------------------------------------------------------------- WebSocket


def test_probe_of_websocket_that_is_none_says_what_to_do(port: str) -> None:
    """A policy port takes no HTTP: it replies 400, or closes."""
    url = f"ws://127.0.0.1:{port}/chess"
    done = run("probe", "--websocket", url, "--origin", "https://www.example.com/page.html", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    [host] = json.loads(done.stdout)["hosts"]
    assert (host["websocket"], host["origins"], host["ok"]) == (url, ["https://www.example.com"], False)
    assert [finding["code"][:3] for finding in host["findings"]] == ["PB6"]


def test_probe_of_websocket_at_closed_port_exits_1() -> None:
    done = run("probe", "--websocket", f"wss://127.0.0.1:{free_port()}/")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error PB601 no-connection: " in done.stdout
    done = run("probe", "--websocket", f"ws://127.0.0.1:{free_port()}/", "--nagios")
    assert (done.returncode, done.stdout[:24]) == (2, "FLASHPOL CRITICAL - ws:/")


# -------------------------------------------------------------------------------------------------------------- RTMP


def test_probe_of_media_servers_that_are_none_says_what_is_there(port: str) -> None:
    """A policy port takes no RTMP: it closes."""
    place = f"rtmp://127.0.0.1:{port}/live"
    done = run("probe", f"127.0.0.1:{port}", f"rtmpt://127.0.0.1:{port}/live", "--rtmp", "live", "--json")
    assert (done.returncode, done.stderr) == (1, "")
    direct, tunnel = json.loads(done.stdout)["hosts"]
    assert (direct["rtmp"], direct["ok"]) == (place, False)
    assert [finding["code"] for finding in direct["findings"]] == ["PB701", "PB713"]
    assert (tunnel["rtmp"], tunnel["ok"]) == (f"rtmpt://127.0.0.1:{port}/live", False)
    assert [finding["code"] for finding in tunnel["findings"]] == ["PB701", "PB720"]


def test_probe_of_media_server_at_closed_port_exits_1() -> None:
    done = run("probe", f"127.0.0.1:{free_port()}", "--rtmp")
    assert (done.returncode, done.stderr) == (1, "")
    assert "error PB701 no-way: " in done.stdout
    assert "note PB705 way-refused: " in done.stdout
    proxy = f"http://127.0.0.1:{free_port()}"
    done = run("probe", "games.invalid", "--rtmp", "live", "--proxy", proxy, "--nagios")
    assert (done.returncode, done.stdout[:26]) == (2, "FLASHPOL CRITICAL - rtmp:/")
