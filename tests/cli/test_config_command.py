"""flashpol config as operators run it: what it prints, and that its output can be served."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from flashpol.config import Server, load
from flashpol.policy import compile_reply
from testkit.certificates import in_days, make_ca
from testkit.clients import ask
from testkit.processes import POLICY, Flashpol, one_line, run

FILE = """
[server]
workers = 2
admin = "off"
request_timeout = 1.5
[policies.games]
file = "games.xml"
[policies.chat]
grants = [{domain = "chat.example", ports = "1935"}]
[[listeners]]
name = "master"
address = "127.0.0.1:0"
policy = "games"
[[listeners]]
address = "127.0.0.1:0"
policy = "chat"
reply_timeout = 2
"""

WARNED = "<cross-domain-policy><allow-access-from domain='*.example.com' to-ports='80-81'/></cross-domain-policy>"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "games.xml").write_bytes(POLICY.read_bytes())
    (tmp_path / "flashpol.toml").write_text(FILE)
    return tmp_path / "flashpol.toml"


def test_config_defaults_as_printed_can_be_served(tmp_path: Path) -> None:
    done = run("config", "--defaults")
    assert (done.returncode, done.stderr) == (0, "")
    file = tmp_path / "d.toml"
    file.write_text(done.stdout)
    assert load(file).server == Server()
    assert run("config", "-q", "-c", file).returncode == 0
    file.write_text(done.stdout.replace("[::]:843", "127.0.0.1:0").replace("127.0.0.1:9843", "off"))
    with Flashpol("-c", file, listen=(), admin=None, workers=None) as server:
        assert b'domain="*.example.com"' in ask(server.places[0])


def test_config_output_can_be_served(file: Path, tmp_path: Path) -> None:
    done = run("config", "-c", file, "--watch", "2", "--allow", "flag.example:1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# from {file}\n[server]\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "printed.toml").write_text(done.stdout)
    printed = load(elsewhere / "printed.toml")
    assert printed.server.watch == 2.0
    assert printed.server.timeouts == load(file).server.timeouts
    with Flashpol("-c", elsewhere / "printed.toml", listen=(), admin=None, workers=None) as server:
        replies = [ask(place) for place in server.places]
    assert len(replies) == 2
    for reply in replies:
        assert b"flag.example" in reply
        assert f"{len(reply)} bytes; sha256 of its policy: {hashlib.sha256(reply[:-1]).hexdigest()}" in done.stdout


def test_config_json_has_settings_and_replies(file: Path) -> None:
    done = run("config", "-c", file, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    data = json.loads(done.stdout)
    assert set(data) == {"version", "server", "policies", "certificates", "listeners", "warnings"}
    assert (data["version"], data["warnings"]) == (1, [])
    assert (data["server"]["workers"], data["server"]["admin"], data["server"]["backlog"]) == (2, "off", 65535)
    assert data["policies"]["games"] == {"file": str(file.parent / "games.xml")}
    reply = compile_reply(POLICY.read_bytes())
    assert data["listeners"][0] == {
        "name": "master",
        "address": "127.0.0.1:0",
        "policy": "games",
        "dialect": "flash",
        "proxy_protocol": False,
        "rtmpt": False,
        "websocket": False,
        "bytes": len(reply),
        "sha256": hashlib.sha256(reply[:-1]).hexdigest(),
    }
    assert data["listeners"][1]["reply_timeout"] == 2.0


def test_config_shows_the_certificates(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("flashpol._tls", reason="built without OpenSSL")
    begin, end = in_days(-1), in_days(5.5)
    files = make_ca(tmp_path).issue("a.example", "*.b.example", kind="rsa", not_before=begin, not_after=end)
    file.write_text(FILE.replace('name = "master"', 'name = "master"\ntls = ["games"]') + files.toml())
    done = run("config", "-c", file)
    assert done.returncode == 0
    assert done.stderr.startswith(f"flashpol config: warning: certificate games: {files.chain}: expires in 5 days, on ")
    header, about, *rest = done.stdout[done.stdout.index("[certificates") :].splitlines()[:4]
    assert (header, rest) == ("[certificates.games]", [f'chain = "{files.chain}"', f'key = "{files.key}"'])
    digest = x509.load_pem_x509_certificate(files.chain.read_bytes()).fingerprint(SHA256()).hex()
    assert about == f"# for a.example, *.b.example; RSA 2048; until {end:%Y-%m-%d %H:%M} UTC; sha256 {digest}"
    assert 'tls = ["games"]' in done.stdout
    data = json.loads(run("config", "-c", file, "--json").stdout)
    assert data["certificates"]["games"] == {
        "chain": str(files.chain),
        "key": str(files.key),
        "names": ["a.example", "*.b.example"],
        "not_before": int(begin.timestamp()),
        "not_after": int(end.timestamp()),
        "kind": "RSA 2048",
        "sha256": digest,
    }
    assert len(data["warnings"]) == 1
    assert (data["listeners"][0]["tls"], data["listeners"][0]["tls_only"]) == (["games"], False)
    assert "tls_only" not in data["listeners"][1]
    files.key.unlink()
    assert str(files.key) in one_line(run("config", "-c", file), "flashpol config")


def test_config_warnings_go_to_stderr_or_into_the_json(file: Path) -> None:
    (file.parent / "games.xml").write_text(WARNED)
    done = run("config", "-c", file)
    assert done.returncode == 0
    warnings = done.stderr.splitlines()
    assert warnings
    for line in warnings:
        assert line.startswith(f"flashpol config: warning: {file.parent / 'games.xml'}:1:")
    as_json = run("config", "-c", file, "--json")
    told = [f"flashpol config: warning: {line}" for line in json.loads(as_json.stdout)["warnings"]]
    assert (told, as_json.stderr) == (warnings, "")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("workers = 2", "worker = 2", (":3:1: [server]: unknown key 'worker': did you mean 'workers'?",)),
        ("games.xml", "none.xml", (":7:1: ", "none.xml: cannot be read: No such file")),
        ("1935", "0", (":9:1: policy chat: ", "chat.example:0")),
        ("[server]", "[server]\nuser = 'nobody-of-that-name'", (":3:1: user 'nobody-of-that-name'", "no such user")),
        ("[server]", "[server]\ngroup = 'no-such-group'", (":3:1: group 'no-such-group'", "no such group")),
        ("[server]", "[server]\nchroot = '/no/such/folder'", (":3:1: chroot '/no/such/folder'", "no such folder")),
        (
            "127.0.0.1:0",
            "127.0.0.1:8430",
            (":14:1: two listeners are on 127.0.0.1:8430: change one", "flashpol.toml:10:1)"),
        ),
    ],
)
def test_config_with_a_mistake_reports_it_in_one_line(file: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    file.write_text(FILE.replace(old, new))
    message = one_line(run("config", "-c", file), "flashpol config")
    for word in words:
        assert word in message


def test_config_without_policy_is_refused() -> None:
    assert "no policy" in one_line(run("config"), "flashpol config")


def test_config_of_an_address_in_use_succeeds(file: Path) -> None:
    with Flashpol("--policy", POLICY) as server:
        file.write_text(FILE.replace("127.0.0.1:0", server.addresses[0], 1))
        assert run("config", "-c", file).returncode == 0


def test_config_quiet_prints_errors_only(file: Path) -> None:
    done = run("config", "-q", "-c", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (file.parent / "games.xml").write_text(WARNED)
    done = run("config", "--quiet", "-c", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    file.write_text(FILE.replace("workers", "worker"))
    assert "unknown key 'worker'" in one_line(run("config", "--quiet", "-c", file), "flashpol config")


def test_config_with_rtmpt_flag_prints_it() -> None:
    done = run("config", "--allow", "*:1935", "--upstream", "127.0.0.1:1936", "--rtmpt", "--listen", "127.0.0.1:1935")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nrtmpt = true\n" in done.stdout
    assert '\nother_http = "relay"  # default\n' in done.stdout


def test_config_prints_upstreams_by_protocol_in_one_line(file: Path) -> None:
    file.write_text(f'{FILE}[listeners.upstreams]\nrtmp = "127.0.0.1:1936"\nhttp = ["[::1]:80", "unix:/a"]\n')
    done = run("config", "-c", file)
    assert '\nupstreams = {rtmp = "127.0.0.1:1936", http = ["[::1]:80", "unix:/a"]}\n' in done.stdout


def test_config_with_websocket_flag_prints_it_and_warns_where_the_policy_grants_nothing() -> None:
    flags = ("--allow", "*.example.com:1935", "--upstream", "127.0.0.1:7000", "--websocket")
    done = run("config", *flags, "--listen", "127.0.0.1:1935")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nwebsocket = true\n" in done.stdout
    done = run("config", *flags, "--listen", "127.0.0.1:843")
    assert done.returncode == 0
    assert "flashpol config: warning: listener 127.0.0.1:843: WebSocket on every path is refused to " in done.stderr
