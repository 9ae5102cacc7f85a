"""flashpol serve as operators run it: the mistakes it reports, and what it serves."""

import argparse
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flashpol.cli import configure as configuring
from flashpol.cli.configure import configure
from flashpol.cli.main import main, parse_arguments
from flashpol.cli.serve import add_to
from flashpol.config import CertificateSource, ConfigError, load
from flashpol.config.renamed import RENAMED
from flashpol.log import handler
from flashpol.policy import allow_policy, compile_reply, parse, render
from flashpol.serving.plan import Loader
from flashpol.supervisor import arbiter
from flashpol.supervisor.listen_sockets import ListenSockets
from flashpol.version import VERSION
from testkit.clients import ask, connect, rest
from testkit.polling import eventually
from testkit.processes import DEADLINE, POLICY, ROOT, Flashpol, command, free_port, one_line, run
from testkit.tls_serving import AVAILABLE
from testkit.tls_site import REPLY as SITE_REPLY
from testkit.tls_site import TlsSite

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


class LoadingArbiter:
    """An arbiter that loads as the real one does, and must not get further."""

    def __init__(self, loader: Loader, log_file: object, on_ready: object, listen_sockets: object) -> None:
        loader.load()
        pytest.fail("flashpol serve would have started")


Refuse = Callable[..., str]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refuse:
    """`one_line(run(...))` within this process: a process of its own takes a third of a second of CPU time."""
    monkeypatch.setattr(arbiter, "Arbiter", LoadingArbiter)
    monkeypatch.setattr(ListenSockets, "acquire_for", lambda *_: [])
    monkeypatch.setattr(handler, "set_up", lambda *_: None)
    monkeypatch.chdir(ROOT)

    def refuse(*arguments: str | Path, command: str = "flashpol serve") -> str:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        return one_line(subprocess.CompletedProcess(arguments, status, *capfd.readouterr()), command)

    return refuse


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--polcy", "x"), ("unknown flag --polcy",)),
        (("--workers", "0"), ("--workers '0'",)),
        (("--policy", "none.xml"), ("none.xml", "No such file")),
        ((*ALLOW, "--listen", "192.0.2.1:0"), ("192.0.2.1:0", "not an address of this host", "ip address")),
        ((*ALLOW, "--admin", "192.0.2.1:0", "--listen", "127.0.0.1:0"), ("192.0.2.1:0", "not an address of this host")),
    ],
)
def test_serve_process_with_a_mistake_exits_with_2_and_one_line(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    message = one_line(run("serve", *arguments))
    for word in words:
        assert word in message


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
            ("policy.xml:3:", "this is a Flash policy"),
        ),
        (
            ("--policy", "examples/policy.xml", "--dialect", "air"),
            ('--dialect \'air\': write "flash" or "silverlight"',),
        ),
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
        ((*ALLOW, "--listen", "843"), ("--listen: '843'", "write IP:PORT")),
        ((*ALLOW, "--listen", ""), ("''", "write IP:PORT")),
        ((*ALLOW, "--listen", "localhost:843"), ("'localhost:843'", "write IP:PORT")),
        ((*ALLOW, "--listen", "127.0.0.1:99999"), ("'99999'", "from 0 to 65535")),
        ((*ALLOW, "--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"), ("two listeners", "127.0.0.1:1")),
        ((*ALLOW, "--upstream", "7000"), ("'7000'", "write HOST:PORT")),
        ((*ALLOW, "--upstream", ""), ("''", "write HOST:PORT")),
        ((*ALLOW, "--websocket"), ("listener [::]:843: websocket has no upstream to relay to: set upstream",)),
        ((*ALLOW, "--rtmpt"), ("listener [::]:843: rtmpt has no upstream to relay to: set upstream, or rtmp in ",)),
        ((*ALLOW, "--websocket", "--upstream", "[::1]:1", "--dialect", "silverlight"), ("websocket is for Flash ",)),
        ((*ALLOW, "--upstream", "localhost:843"), ("the upstream of [::]:843 is this listener itself",)),
        ((*ALLOW, "--workers", "0"), ("--workers '0': write \"auto\" or a number from 1 to 256",)),
        ((*ALLOW, "--workers", "-1"), ("'-1'", "from 1 to 256")),
        ((*ALLOW, "--workers", "many"), ("'many'", "from 1 to 256")),
        ((*ALLOW, "--workers", ""), ("''", "from 1 to 256")),
        ((*ALLOW, "--admin", "on"), ("'on'", "write IP:PORT")),
        ((*ALLOW, *QUIET, "--user", "nobody-of-that-name"), ("'nobody-of-that-name'", "no such user")),
        ((*ALLOW, *QUIET, "--user", ""), ("''", "no such user")),
        ((*ALLOW, "--policy", "examples/policy.xml"), ("--policy", "--allow", "not allowed with")),
        ((*ALLOW, "--deny-all"), ("--deny-all", "not allowed with")),
        (("--deny-all", "-c", "flashpol.toml"), ("--deny-all", "flashpol.toml cannot be served with it")),
        (("--deny-all", "--dialect", "silverlight"), ("policy from --deny-all: deny_all is for Flash policies",)),
        ((*ALLOW, "--watch", "often"), ("--watch 'often'", "write 0 (off) or a number from 0.1 to 3600")),
        ((*ALLOW, "--log-format", "xml"), ("--log-format 'xml'", 'write "text" or "json"')),
        ((*ALLOW, "--access-log", "2"), ("--access-log '2'", "write a number from 0 to 1")),
        ((*ALLOW, "--listen", "systemd:"), ("'systemd:'", "write systemd:NAME")),
        ((*ALLOW, "--pid-file", "none/flashpol.pid"), ("--pid-file none/flashpol.pid", "there is no folder")),
        ((*ALLOW, "--pid-file", "docs"), ("--pid-file docs: cannot be written: it is a folder",)),
        (("-c", "none.toml"), ("none.toml", "No such file")),
        (("-c", "."), (".: cannot be read",)),
        (("-c", "examples/policy.xml"), ("examples/policy.xml:1:1: not TOML",)),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_serve_with_a_mistake_reports_it_in_one_line(
    refuse: Refuse, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    message = refuse("serve", *arguments)
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("arguments", "command", "message"),
    [
        ((), "flashpol", "COMMAND is missing: write one of serve, config, "),
        (("sing",), "flashpol", "unknown command 'sing': write one of serve, "),
        (("sevre",), "flashpol", "unknown command 'sevre': did you mean 'serve'? See flashpol --help"),
        (("--versoin",), "flashpol", "unknown flag --versoin: did you mean '--version'? See flashpol --help"),
        (
            ("serve", "--polcy", "x"),
            "flashpol serve",
            "unknown flag --polcy: did you mean '--policy'? See flashpol serve ",
        ),
        (("serve", "--polcy=x"), "flashpol serve", "unknown flag --polcy: did you mean '--policy'?"),
        (("decide", "--form", "a.example"), "flashpol decide", "unknown flag --form: did you mean '--from'?"),
        (
            ("serve", *ALLOW, "--backlog", "9"),
            "flashpol serve",
            "unknown flag --backlog: backlog has no flag: set it in [server]",
        ),
        (("config", "--max-sessions=9"), "flashpol config", "unknown flag --max-sessions: max_sessions has no flag: "),
        (("serve", *ALLOW, "843"), "flashpol serve", "unexpected argument 843; see flashpol serve --help"),
    ],
)
def test_command_line_that_is_mistyped_suggests_another(
    refuse: Refuse, arguments: tuple[str, ...], command: str, message: str
) -> None:
    assert refuse(*arguments, command=command).startswith(message)


def test_renamed_flag_names_the_new_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(RENAMED, "--old", "--old was renamed: write --new")
    with pytest.raises(SystemExit):
        parse_arguments(["serve", "--old=1"])
    assert capsys.readouterr().err.startswith("flashpol serve: unknown flag --old: --old was renamed: write --new;")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ("the policy is empty", "<cross-domain-policy/>")),
        (b"\0", ("the policy is empty",)),
        (b"<!doctype html><title>x</title>", ("policy.xml:1:1:", "HTML page")),
        (b"<cross-domain-policy>\n<allow-access-from domain='*' to-ports='x'/>", ("policy.xml:2:", "cut-off")),
        (b"\x89PNG\r\n\x1a\n", ("0x89", "UTF-8")),
        (b"<cross-domain-policy>" + b" " * (1 << 20), ("1,048,", "keep it within 1,048,576")),
    ],
)  # fmt: skip
def test_serve_of_a_file_that_is_not_a_policy_says_where(
    refuse: Refuse, tmp_path: Path, content: bytes, words: tuple[str, ...]
) -> None:
    file = tmp_path / "policy.xml"
    file.write_bytes(content)
    message = refuse("serve", *QUIET, "--policy", file)
    for word in (str(file), *words):
        assert word in message


def test_serve_of_a_file_that_is_too_large_names_it(refuse: Refuse, tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate(1 << 34)
    assert "disk.img: the policy has" in refuse("serve", *QUIET, "--policy", tmp_path / "disk.img")


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
def test_serve_of_a_bad_configuration_reports_it_in_one_line(
    refuse: Refuse, tmp_path: Path, text: str, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(text)
    message = refuse("serve", "-c", file, *arguments)
    for word in words:
        assert word in message


def test_serve_on_a_port_of_another_program_says_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for arguments in (("--listen", address), ("--listen", "127.0.0.1:0", "--admin", address)):
            message = one_line(run("serve", *ALLOW, "--admin", "off", *arguments))
            assert message.startswith(f"{address}: in use")
            assert "another port" in message


@pytest.mark.slow
def test_serve_on_a_port_of_another_flashpol_says_in_use() -> None:
    with Flashpol(*ALLOW, workers=2) as server:
        for workers in ("1", "2"):
            done = run("serve", *ALLOW, "--admin", "off", "--workers", workers, "--listen", server.addresses[0])
            assert one_line(done).startswith(f"{server.addresses[0]}: in use")
        done = run("serve", *ALLOW, "--listen", "127.0.0.1:0", "--admin", "{}:{}".format(*server.admin_place))
        assert "in use" in one_line(done)
        assert ask(server.place).startswith(b"<?xml")


def test_serve_with_listener_and_admin_on_one_address_names_it() -> None:
    address = f"127.0.0.1:{free_port()}"
    assert address in one_line(run("serve", *ALLOW, "--workers", "1", "--listen", address, "--admin", address))


# ----------------------------------------------------------------------------------------------------------- good input


def refuses(place: tuple[str, int]) -> bool:
    try:
        socket.create_connection(place, DEADLINE).close()
    except ConnectionRefusedError:
        return True
    return False


@needs_ipv6
def test_serve_on_several_addresses_answers_on_each() -> None:
    listen = ("127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0")
    with Flashpol("--policy", POLICY, listen=listen) as server:
        assert [address.rpartition(":")[0] for address in server.addresses] == [a.rpartition(":")[0] for a in listen]
        ports = [port for _, port in server.places]
        assert len(set(ports)) == len(ports)
        assert min(ports) > 0
        for host, port in zip(("127.0.0.1", "127.0.0.1", "::1", "::1", "127.0.0.1"), ports, strict=True):
            assert ask((host, port)) == REPLY
        assert ask(("127.0.0.1", ports[3])) == REPLY, "[::] is dual-stack"
        # A program of another test may have the same port of 127.0.0.1.
        eventually(lambda: refuses(("127.0.0.1", ports[2])), "[::1] is without IPv4")
        for address, replies in zip(server.addresses, (1, 1, 1, 2, 1), strict=True):
            server.counts(replies, "replies_total", listener=address)
        assert server.complaints == []


SILVERLIGHT = b"<access-policy><cross-domain-access></cross-domain-access></access-policy>"


def test_serve_of_a_folder_merges_its_files(tmp_path: Path) -> None:
    for number, domain in enumerate(("a.com", "*.com", "b.net")):
        (tmp_path / f"{number}.xml").write_bytes(render(allow_policy([f"{domain}:80"])))
    with Flashpol("--policy", tmp_path) as server:
        assert ask(server.place) == compile_reply(render(allow_policy(["*.com:80", "b.net:80"])))
    (tmp_path / "x.xml").write_text("<cross-domain-policy>\n<x/></cross-domain-policy>")
    assert one_line(run("serve", *QUIET, "--policy", tmp_path)).startswith(f"{tmp_path}/x.xml:2:1: <x> is not known")


def test_serve_of_silverlight_by_flag(tmp_path: Path) -> None:
    (tmp_path / "s.xml").write_bytes(SILVERLIGHT + b"\0")
    with Flashpol("--policy", tmp_path / "s.xml", "--dialect", "silverlight") as server:
        assert rest(connect(server.place, b"<policy-file-request/>")) == SILVERLIGHT
        attempt = server.out.splitlines()[1]
        assert attempt == f"try: printf '<policy-file-request/>' | nc {server.place[0]} {server.place[1]}"
    refused = one_line(run("serve", *QUIET, "--policy", tmp_path / "s.xml"))
    assert refused.startswith(f"{tmp_path}/s.xml:1:1: this is a Silverlight policy; serve it with")


def test_serve_of_both_dialects_from_a_configuration(tmp_path: Path) -> None:
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


def test_serve_with_upstream_relays_other_traffic() -> None:
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


def test_configure_without_listen_takes_the_port_of_the_dialect() -> None:
    parser = argparse.ArgumentParser()
    add_to(parser.add_subparsers())
    for dialect, port in (("flash", 843), ("silverlight", 943)):
        options = parser.parse_args(["serve", *ALLOW, "--dialect", dialect])
        assert [listener.address for listener in configure(options).listeners] == [("::", port)]


@pytest.mark.parametrize(
    ("listen", "host"),
    [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1"), pytest.param("[::]:0", "127.0.0.1", marks=needs_ipv6)],
)
def test_ready_line_names_addresses_and_a_command_that_works(listen: str, host: str) -> None:
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


@pytest.mark.skipif(not AVAILABLE, reason="built without OpenSSL")
def test_ready_line_of_a_listener_with_tls_only_asks_inside_tls(tmp_path: Path) -> None:
    site = TlsSite(tmp_path)
    site.configure(listener="tls_only = true")
    with site.serve() as server:
        attempt = server.out.splitlines()[1]
        port = server.place[1]
        assert attempt == (
            rf"try: printf '<policy-file-request/>\0' | openssl s_client -quiet -connect 127.0.0.1:{port}"
        )
        if not (shutil.which("openssl") and shutil.which("sh")):
            pytest.skip("no openssl to try the printed command with")
        command = attempt.removeprefix("try: ")
        done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=5, check=True)
        assert done.stdout == SITE_REPLY


def test_serve_of_grants_by_flag() -> None:
    grants = ["*.example.com:1935,8000-8100", "games.example.net:843", "*.example.com:1935,8000-8100"]
    with Flashpol(*(argument for grant in grants for argument in ("--allow", grant))) as server:
        reply = ask(server.place)
    assert reply.endswith(b"</cross-domain-policy>\0")
    assert parse(reply) == allow_policy(grants)


def test_serve_without_admin_endpoint() -> None:
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


def test_serve_of_a_configuration_file(config: Path) -> None:
    with Flashpol("-c", config, workers=None, admin=None, listen=()) as server:
        assert server.worker_count == 2
        games, chat = map(ask, server.places)
        assert games == REPLY, "relative to the configuration file"
        assert parse(chat) == allow_policy(["chat.example:1935"])
        server.counts(1, "replies_total", listener="master")
        server.counts(1, "replies_total", listener=server.addresses[1])


def test_flags_override_the_configuration_file(config: Path) -> None:
    with Flashpol("-c", config, "--allow", "flag.example:1", admin="off", workers=1) as server:
        assert (server.worker_count, server.url, len(server.places)) == (1, None, 1)
        assert parse(ask(server.place)) == allow_policy(["flag.example:1"])


def test_policy_flag_applies_to_all_listeners_of_the_file(config: Path) -> None:
    with Flashpol("-c", config, "--allow", "flag.example:1", listen=()) as server:
        assert len(server.places) == 2
        for place in server.places:
            assert parse(ask(place)) == allow_policy(["flag.example:1"])


@pytest.fixture
def default_config(config: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(configuring, "DEFAULT_CONFIG", config)
    return config


def options_of(*arguments: str) -> argparse.Namespace:
    return parse_arguments(["serve", *arguments])


def test_configure_without_policy_flags_reads_the_default_file(default_config: Path) -> None:
    assert configure(options_of()) == load(default_config)
    settings = configure(options_of("--listen", "127.0.0.1:1", "--workers", "3", "--policy", "examples/policy.xml"))
    assert (settings.server.workers, len(settings.policies)) == (3, 1)


@pytest.mark.parametrize("flags", [ALLOW, ("--policy", "examples/policy.xml")])
def test_configure_with_policy_flags_ignores_the_default_file(default_config: Path, flags: tuple[str, ...]) -> None:
    assert len(load(default_config).listeners) == 2
    assert len(configure(options_of(*flags)).listeners) == 1


def test_configure_without_policy_and_default_file_says_where_to_write_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configuring, "DEFAULT_CONFIG", tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=rf"^no policy: .*, or write {tmp_path}/none.toml$"):
        configure(options_of())


def test_configure_with_tls_flags_has_their_certificates_on_all_listeners(config: Path) -> None:
    settings = configure(options_of("-c", str(config), "--tls", "a.pem,b.pem", "--tls", "c.pem"))
    first, second = (
        CertificateSource("from --tls", Path("a.pem"), Path("b.pem")),
        CertificateSource("from --tls 2", Path("c.pem")),
    )
    assert settings.certificates == (first, second)
    assert [listener.tls for listener in settings.listeners] == [(first.name, second.name)] * 2


@pytest.mark.parametrize("text", ["", ",", "a.pem,", ",b.pem", "a.pem,b.pem,c.pem"])
def test_configure_with_a_mistaken_tls_flag_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match=f"^--tls '{text}': write CHAIN or CHAIN,KEY "):
        configure(options_of(*ALLOW, "--tls", text))


# Connects, and sends a request, when the module that loads policies is about to be imported.
EARLY_CLIENT = """
import socket, sys
port, *arguments = sys.argv[1:]
class Early:
    def find_spec(name, path, target=None):
        if name == "flashpol.serving.plan" and not clients:
            clients.append(socket.create_connection(("127.0.0.1", int(port))))
            clients[0].sendall(b"<policy-file-request/>\\0")
            print(clients[0].getsockname()[1], flush=True)
clients = []
sys.meta_path.insert(0, Early)
from flashpol.cli.main import main
sys.exit(main(arguments))
"""


def test_serve_listens_before_it_loads_policies(tmp_path: Path) -> None:
    port = free_port()
    mistaken = tmp_path / "mistaken.xml"
    mistaken.write_text("<cross-domain-policy>")
    arguments = ["serve", "--policy", str(mistaken), "--listen", f"127.0.0.1:{port}", "--admin", "off"]
    done = subprocess.run(
        [sys.executable, "-c", EARLY_CLIENT, str(port), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "mistaken.xml" in done.stderr
    assert done.stdout.strip().isdecimal()  # the connection was not refused


def test_pid_file_exists_while_the_server_is_ready(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.pid"
    with Flashpol(*ALLOW, "--pid-file", file) as server:
        assert file.read_text() == f"{server.process.pid}\n"
        assert server.stop() == 0
    assert not file.exists()


def test_pid_file_of_another_server_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.pid"
    with Flashpol(*ALLOW, "--pid-file", file) as server:
        file.write_text("1\n")
        assert server.stop() == 0
    assert file.read_text() == "1\n"


def test_pid_file_that_cannot_be_written_is_logged(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.pid"
    prelude = f"import flashpol.cli.pid_file as p; p.write = lambda path: open('{tmp_path}/none/x', 'w')"
    with Flashpol(*ALLOW, "--pid-file", file, prelude=prelude) as server:
        assert ask(server.place).startswith(b"<?xml")
        server.logs(f"ERROR: {file}: cannot be written: No such file or directory")


@pytest.mark.parametrize("redirection", ["<&-", "1>&-", "2>&-", "<&- 1>&- 2>&-", "| true"])
def test_serve_with_closed_standard_streams_serves(redirection: str) -> None:
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


def test_version_flag_prints_the_version() -> None:
    for flag in ("--version", "-v"):
        done = run(flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"flashpol {VERSION}\n", "")


def test_serve_help_names_every_flag() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    for flag in ("--config", "--listen", "--policy", "--allow", "--workers", "--admin", "--user", "--pid-file"):
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


def test_blocker_blocks_gevent() -> None:
    code = f"{BLOCKED}\nimport flashpol.worker.service"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=5, check=False
    )
    assert "is blocked" in done.stderr


# ------------------------------------------------------------------------------------------------------------- deny all


def test_deny_all_serves_a_policy_that_forbids_every_policy_of_the_host(tmp_path: Path) -> None:
    with Flashpol("--deny-all") as server:
        reply = ask(server.place)
    policy = tmp_path / "policy.xml"
    policy.write_bytes(reply.removesuffix(b"\0"))
    assert b'<site-control permitted-cross-domain-policies="none"/>' in reply
    assert b"allow-access-from" not in reply
    for client in ("flash", "lightspark"):
        arguments = ("--from", "http://a.example", "--port", "7000", "--served-from", "843", "--client", client)
        assert run("decide", policy, *arguments, "--expect", "denied").returncode == 0
    done = run("check", "--served-from", "843", policy)
    assert (done.returncode, "error" in done.stdout, "warning" in done.stdout) == (0, False, False), done.stdout


def test_deny_all_as_a_setting_is_the_same_and_survives_config(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    file.write_text('[policies.none]\ndeny_all = true\n[[listeners]]\naddress = "127.0.0.1:0"\n')
    assert "deny_all = true" in run("config", "-c", file).stdout
    with Flashpol("-c", file, listen=()) as server, Flashpol("--deny-all") as other:
        assert ask(server.place) == ask(other.place)
    file.write_text("[policies.none]\ndeny_all = false\n")
    assert f"{file}:2:1: [policies.none]: deny_all = false: write true" in one_line(run("serve", "-c", file))
