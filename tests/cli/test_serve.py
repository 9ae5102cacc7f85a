"""The command as operators run it: what it refuses, in which words, and what it serves."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from flashpol.cli.serve import add_to, configure
from flashpol.policy import allow_policy, compile_reply, parse, render
from flashpol.version import VERSION
from testkit.clients import ask, connect, rest
from testkit.polling import eventually
from testkit.processes import POLICY, ROOT, Flashpol, command, free_port, one_line, run

QUIET = ("--admin", "off", "--workers", "1", "--listen", "127.0.0.1:0")
ALLOW = ("--allow", "*.example.com:1935")
REPLY = compile_reply(POLICY.read_bytes())


def has_ipv6() -> bool:
    try:
        free_port("::1")
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6 loopback")


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("no policy", "--policy FILE", "--allow DOMAIN:PORTS")),
        (("--policy", "none.xml"), ("none.xml", "No such file")),
        (("--policy", "."), (".: no policy in this folder", "put *.xml files there")),
        (("--policy", ""), ("no policy in this folder",)),
        (("--policy", "x" * 300), ("cannot be read", "too long")),
        (
            ("--policy", "examples/policy.xml", "--dialect", "silverlight"),
            ("policy.xml: line 3", "this is a Flash policy"),
        ),
        (("--policy", "examples/policy.xml", "--dialect", "air"), ("'air'", '"flash" or "silverlight"')),
        (
            ("--policy", "examples", "--dialect", "silverlight"),
            ("examples: is a folder", "write one silverlight policy"),
        ),
        ((*ALLOW, "--dialect", "silverlight"), ("from --allow: DOMAIN:PORTS is for Flash",)),
        (("--policy", "two\nlines.xml"), ("two\\nlines.xml", "No such file")),
        (("--policy", "pyproject.toml"), ("pyproject.toml", "keep only the XML")),
        (("--allow", ""), ('""', "write DOMAIN:PORTS")),
        (("--allow", "example.com"), ('"example.com"', "write DOMAIN:PORTS")),
        (("--allow", "a.com:1", "--allow", "http://a.com:80"), ('"http://a.com:80"', "URL")),
        (("--allow", "a.com:0"), ('"a.com:0"', 'there is no port "0"')),
        (("--allow", "a\nb:1"), ("a\\nb",)),
        ((*ALLOW, "--listen", "843"), ("'843'", "write IP:PORT")),
        ((*ALLOW, "--listen", ""), ("''", "write IP:PORT")),
        ((*ALLOW, "--listen", "localhost:843"), ("'localhost:843'", "write IP:PORT")),
        ((*ALLOW, "--listen", "127.0.0.1:99999"), ("'99999'", "from 0 to 65535")),
        ((*ALLOW, "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"), ("two listeners", "127.0.0.1:1")),
        ((*ALLOW, "--listen", "192.0.2.1:0"), ("192.0.2.1:0", "not an address of this host", "ip address")),
        ((*ALLOW, "--upstream", "7000"), ("'7000'", "write HOST:PORT")),
        ((*ALLOW, "--upstream", ""), ("''", "write HOST:PORT")),
        ((*ALLOW, "--upstream", "localhost:843"), ("the upstream of [::]:843 is this listener itself",)),
        ((*ALLOW, "--workers", "0"), ("'0'", '"auto" or a number from 1 to 256')),
        ((*ALLOW, "--workers", "-1"), ("'-1'", "from 1 to 256")),
        ((*ALLOW, "--workers", "many"), ("'many'", "from 1 to 256")),
        ((*ALLOW, "--workers", ""), ("''", "from 1 to 256")),
        ((*ALLOW, "--admin", "on"), ("'on'", "write IP:PORT")),
        ((*ALLOW, "--admin", "192.0.2.1:0", "--listen", "127.0.0.1:0"), ("192.0.2.1:0", "not an address of this host")),
        ((*ALLOW, *QUIET, "--user", "nobody-of-that-name"), ("'nobody-of-that-name'", "no such user")),
        ((*ALLOW, *QUIET, "--user", ""), ("''", "no such user")),
        ((*ALLOW, "--policy", "examples/policy.xml"), ("--policy", "--allow", "not allowed with")),
        ((*ALLOW, "--watch", "often"), ("--watch = 'often'", "write 0 (off) or a number from 0.1 to 3600")),
        ((*ALLOW, "--log-format", "xml"), ("--log-format = 'xml'", 'write "text" or "json"')),
        ((*ALLOW, "--access-log", "2"), ("--access-log = 2", "write a number from 0 to 1")),
        ((*ALLOW, "--listen", "systemd:"), ("'systemd:'", "write systemd:NAME")),
        (("-c", "none.toml"), ("none.toml", "No such file")),
        (("-c", "."), (".: cannot be read",)),
        (("-c", "examples/policy.xml"), ("examples/policy.xml:1:1: not TOML",)),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_refused(arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    message = one_line(run("serve", *arguments))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "word"), [((), "COMMAND"), (("sing",), "'sing'"), (("serve", *ALLOW, "--port", "843"), "--port 843")]
)
def test_no_such_command(arguments: tuple[str, ...], word: str) -> None:
    assert word in one_line(run(*arguments), "flashpol")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("the policy is empty", "<cross-domain-policy/>")),
        (b"\0", ("the policy is empty",)),
        (b"<!doctype html><title>x</title>", ("line 1", "HTML page")),
        (b"<cross-domain-policy>\n<allow-access-from domain='*' to-ports='x'/>", ("line 2", "cut-off")),
        (b"\x89PNG\r\n\x1a\n", ("0x89", "UTF-8")),
        (b"<cross-domain-policy>" + b" " * (1 << 20), ("1,048,", "keep it within 1,048,576")),
    ],
)  # fmt: skip
def test_a_file_that_is_no_policy(tmp_path: Path, content: bytes, words: tuple[str, ...]) -> None:
    file = tmp_path / "policy.xml"
    file.write_bytes(content)
    message = one_line(run("serve", *QUIET, "--policy", file))
    for word in (str(file), *words):
        assert word in message


def test_a_file_too_large_to_be_read(tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(1 << 34)
    assert "disk.img: the policy has" in one_line(run("serve", *QUIET, "--policy", tmp_path / "disk.img"))


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("[server]\nworkers = 1\n", (), ("no policy",)),
        ("policies = {a = {file = 'a'}, b = {file = 'b'}}", ("--listen", "127.0.0.1:0"), ("several", "--policy")),
        ("[policies.a]\nfile = 'none.xml'\n", QUIET, ("none.xml", "No such file")),
        ('[policies.a]\nfile = "a\\u0000b"\n', QUIET, ("s.toml", "a\\x00b")),
        ("[policies.a]\ngrants = [{domain = 'a.com', ports = 0}]\n", QUIET, ("policy a", "a.com:0")),
        ("[server]\nuser = 'nobody-of-that-name'\n", (*QUIET, *ALLOW), ("'nobody-of-that-name'",)),
        ("[server]\nport = 843\n", ALLOW, ("s.toml", "[server]", "'port'")),
    ],
)  # fmt: skip
def test_a_configuration_refused(tmp_path: Path, text: str, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    message = one_line(run("serve", "-c", file, *arguments))
    for word in words:
        assert word in message


def test_port_in_use_by_another_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for arguments in (("--listen", address), ("--listen", "127.0.0.1:0", "--admin", address)):
            message = one_line(run("serve", *ALLOW, "--admin", "off", *arguments))
            assert message.startswith(f"{address}: in use")
            assert "another port" in message


def test_port_in_use_by_another_flashpol_is_not_shared_with_it() -> None:
    with Flashpol(*ALLOW, workers=2) as server:
        for workers in ("1", "2"):
            done = run("serve", *ALLOW, "--admin", "off", "--workers", workers, "--listen", server.addresses[0])
            assert one_line(done).startswith(f"{server.addresses[0]}: in use")
        done = run("serve", *ALLOW, "--listen", "127.0.0.1:0", "--admin", "{}:{}".format(*server.admin_place))
        assert "in use" in one_line(done)
        assert ask(server.place).startswith(b"<?xml")


def test_two_of_its_own_addresses_that_overlap() -> None:
    address = f"127.0.0.1:{free_port()}"
    assert address in one_line(run("serve", *ALLOW, "--workers", "1", "--listen", address, "--admin", address))


# ----------------------------------------------------------------------------------------------------------- good input


@needs_ipv6
def test_several_addresses() -> None:
    listen = ("127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0")
    with Flashpol("--policy", POLICY, listen=listen) as server:
        assert [address.rpartition(":")[0] for address in server.addresses] == [a.rpartition(":")[0] for a in listen]
        ports = [port for _, port in server.places]
        assert len(set(ports)) == len(ports)
        assert min(ports) > 0
        for host, port in zip(("127.0.0.1", "127.0.0.1", "::1", "::1", "127.0.0.1"), ports, strict=True):
            assert ask((host, port)) == REPLY
        assert ask(("127.0.0.1", ports[3])) == REPLY, "[::] is dual-stack"
        with pytest.raises(ConnectionRefusedError):
            ask(("127.0.0.1", ports[2]))
        metrics = server.metrics()
        for address, replies in zip(server.addresses, (1, 1, 1, 2, 1), strict=True):
            assert metrics.total("replies_total", listener=address) == replies
        assert server.complaints == []


SILVERLIGHT = b"<access-policy><cross-domain-access></cross-domain-access></access-policy>"


def test_a_folder(tmp_path: Path) -> None:
    for number, domain in enumerate(("a.com", "*.com", "b.net")):
        (tmp_path / f"{number}.xml").write_bytes(render(allow_policy([f"{domain}:80"])))
    with Flashpol("--policy", tmp_path) as server:
        assert ask(server.place) == compile_reply(render(allow_policy(["*.com:80", "b.net:80"])))
    (tmp_path / "x.xml").write_text("<cross-domain-policy>\n<x/></cross-domain-policy>")
    assert one_line(run("serve", *QUIET, "--policy", tmp_path)).startswith(f"{tmp_path}/x.xml:2:1: <x> is not known")


def test_silverlight_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "s.xml").write_bytes(SILVERLIGHT + b"\0")
    with Flashpol("--policy", tmp_path / "s.xml", "--dialect", "silverlight") as server:
        assert rest(connect(server.place, b"<policy-file-request/>")) == SILVERLIGHT
        attempt = server.out.splitlines()[1]
        assert attempt == f"try: printf '<policy-file-request/>' | nc {server.place[0]} {server.place[1]}"
    refused = one_line(run("serve", *QUIET, "--policy", tmp_path / "s.xml"))
    assert refused.startswith(f"{tmp_path}/s.xml: line 1, column 1: this is a Silverlight policy; serve it with")


def test_both_dialects_from_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "s.xml").write_bytes(SILVERLIGHT)
    file = tmp_path / "both.toml"
    file.write_text(
        f"""
        policies = {{f = {{file = "{POLICY}"}}, s = {{file = "s.xml"}}}}
        [server]
        terminator_grace = 30
        [[listeners]]
        address = "127.0.0.1:0"
        policy = "f"
        [[listeners]]
        address = "127.0.0.1:0"
        policy = "s"
        dialect = "silverlight"
        """
    )
    with Flashpol("-c", file, listen=()) as server:
        flash, silverlight = server.places
        assert ask(flash) == REPLY
        assert rest(connect(silverlight, b"<policy-file-request/>")) == SILVERLIGHT
        assert ask(silverlight) == SILVERLIGHT
        assert server.stop() == 0


def test_a_shared_port() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as application,
        Flashpol("--policy", POLICY, "--upstream", f"127.0.0.1:{application.getsockname()[1]}") as server,
    ):
        assert ask(server.place) == REPLY
        application.settimeout(5)
        with connect(server.place, b"hello") as client, application.accept()[0] as inner:
            inner.settimeout(5)
            assert inner.recv(5) == b"hello"
            inner.sendall(b"you")
            assert client.recv(3) == b"you"
        assert server.stop() == 0


def test_the_port_that_each_dialect_asks() -> None:
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers())
    for dialect, port in (("flash", 843), ("silverlight", 943)):
        options = parser.parse_args(["serve", *ALLOW, "--dialect", dialect])
        assert [listener.address for listener in configure(options).listeners] == [("::", port)]


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), pytest.param("[::]:0", "::1", marks=needs_ipv6)],
)
def test_the_ready_line_and_the_command_to_try(listen: str, host: str) -> None:
    with Flashpol("--policy", POLICY, listen=(listen,)) as server:
        ready, attempt = server.out.splitlines()
        port = server.place[1]
        assert ready == f"flashpol {VERSION} ready: 1 worker on {listen[:-1]}{port}; metrics on {server.url}"
        assert attempt == rf"try: printf '<policy-file-request/>\0' | nc {host} {port}"
        assert server.get("/metrics").status == 200
        if not (shutil.which("nc") and shutil.which("sh")):
            pytest.skip("no nc to try the printed command with")
        done = subprocess.run(["sh", "-c", attempt.removeprefix("try: ")], capture_output=True, timeout=5, check=True)
        assert done.stdout == REPLY


def test_grants() -> None:
    grants = ["*.example.com:1935,8000-8100", "games.example.net:843", "*.example.com:1935,8000-8100"]
    with Flashpol(*(argument for grant in grants for argument in ("--allow", grant))) as server:
        reply = ask(server.place)
    assert reply.endswith(b"</cross-domain-policy>\0")
    assert parse(reply) == allow_policy(grants)


def test_admin_off() -> None:
    with Flashpol(*ALLOW, workers=2, admin="off") as server:
        assert server.url is None
        assert "metrics" not in server.out
        assert len(server.children) == 2
        assert ask(server.place).startswith(b"<?xml")


CONFIG = """
[server]
workers = 2
admin = "127.0.0.1:0"
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
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "games.xml").write_bytes(POLICY.read_bytes())
    (tmp_path / "s.toml").write_text(CONFIG)
    return tmp_path / "s.toml"


def test_configuration_file(config: Path) -> None:
    with Flashpol("-c", config, workers=None, admin=None, listen=()) as server:
        assert server.worker_count == 2
        games, chat = map(ask, server.places)
        assert games == REPLY, "relative to the configuration file"
        assert parse(chat) == allow_policy(["chat.example:1935"])
        metrics = server.metrics()
        assert metrics.total("replies_total", listener="master") == 1
        assert metrics.total("replies_total", listener=server.addresses[1]) == 1


def test_flags_win_over_the_file(config: Path) -> None:
    with Flashpol("-c", config, "--allow", "flag.example:1", admin="off", workers=1) as server:
        assert (server.worker_count, server.url, len(server.places)) == (1, None, 1)
        assert parse(ask(server.place)) == allow_policy(["flag.example:1"])


def test_the_policy_flag_is_for_all_listeners_of_the_file(config: Path) -> None:
    with Flashpol("-c", config, "--allow", "flag.example:1", listen=()) as server:
        assert len(server.places) == 2
        for place in server.places:
            assert parse(ask(place)) == allow_policy(["flag.example:1"])


@pytest.mark.parametrize("redirection", ["<&-", "1>&-", "2>&-", "<&- 1>&- 2>&-", "| true"])
def test_serves_though_nobody_reads_what_it_says(redirection: str) -> None:
    port = free_port()
    arguments = ["serve", *ALLOW, "--workers", "1", "--admin", "off", "--listen", f"127.0.0.1:{port}"]
    if redirection == "| true":
        readable, writable = os.pipe()
        os.close(readable)
        shell, output = ["sh", "-c", 'exec "$@"', "sh"], writable
    else:
        shell, output = ["sh", "-c", f'exec "$@" {redirection}', "sh"], os.open(os.devnull, os.O_WRONLY)
    process = subprocess.Popen([*shell, *command(*arguments)], cwd=ROOT, stdout=output, stderr=subprocess.DEVNULL)
    os.close(output)

    def answer() -> bytes:
        assert process.poll() is None, "it ended"
        try:
            return ask(("127.0.0.1", port))
        except ConnectionError:
            return b""

    try:
        assert eventually(answer, "an answer").startswith(b"<?xml")
        process.terminate()
        assert process.wait(5) == 0
    finally:
        process.kill()
        process.wait(5)


# ---------------------------------------------------------------------------------------------------- without serving


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"flashpol {VERSION}\n", "")


def test_help_names_every_flag() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    for flag in ("--config", "--listen", "--policy", "--allow", "--workers", "--admin", "--user"):
        assert flag in done.stdout


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gevent", "prometheus_client") or name == "flashpol._fastpath":
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("module", ["flashpol", "flashpol.policy", "flashpol.config", "flashpol.cli.main"])
def test_importing_needs_neither_gevent_nor_the_extension(module: str) -> None:
    code = f"{BLOCKED}\nimport {module}\nprint({module}.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=5, check=False
    )
    assert (done.stdout, done.stderr) == (f"{module}\n", "")


def test_the_blocker_blocks() -> None:
    code = f"{BLOCKED}\nimport flashpol.worker.service"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=5, check=False
    )
    assert "is blocked" in done.stderr
