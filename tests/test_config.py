"""Settings: what is read from TOML, and what each mistake is told in one line."""

import dataclasses
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpol import config
from flashpol.config import (
    Address,
    Config,
    ConfigError,
    Inherited,
    Limits,
    Listener,
    PolicySource,
    Server,
    kind_of,
    parse_endpoint,
)

POLICY = '[policies.p]\nfile = "p.xml"\n'
LISTENER = '[[listeners]]\naddress = "127.0.0.1:1"\n'


def read(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "flashpol.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load(path)


# ------------------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8430", "127.0.0.1", 8430),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::]:843", "::", 843),
        ("[::1]:65535", "::1", 65535),
        ("[2001:DB8:0:0::1]:00843", "2001:db8::1", 843),
        ("[fe80::1%lo]:80", "fe80::1%lo", 80),
    ],
)
def test_address(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "843", ":843", "127.0.0.1", "localhost:843", "example.com:843", "127.0.0.1:", "127.0.0.1:-1",
        "127.0.0.1:65536", "127.0.0.1:999999", "127.0.0.1:8x", "127.0.0.1: 80", "127.0.0.1:80\n", "127.0.0.1:٣",
        "127.0.0.256:80", "127.1:80", "[127.0.0.1]:80", "::1:80", "[::1]", "[::1]80", "[::1:80", "::1]:80", "[]:80",
        "[::g]:80", "*:80", "127.0.0.1:0x50",
    ],
)  # fmt: skip
def test_no_address(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)
    message = str(caught.value)
    assert repr(text) in message
    assert "write " in message
    assert "\n" not in message


@given(st.text() | st.text("0123456789.:[]%af"))
def test_any_text_is_an_address_or_a_config_error(text: str) -> None:
    try:
        address, message = Address.parse(text), ""
    except ConfigError as error:
        address, message = None, str(error)
    if address:
        assert Address.parse(str(address)) == address
    else:
        assert "write " in message


@pytest.mark.parametrize("name", ["policy", "flashpol.socket", "a b", "~", "x" * 255])
def test_a_socket_of_systemd(name: str) -> None:
    assert parse_endpoint(f"systemd:{name}") == Inherited(name)
    assert parse_endpoint(str(Inherited(name))) == Inherited(name)


@pytest.mark.parametrize("text", ["systemd:", "systemd:a:b", "systemd:é", "systemd:a\tb", "systemd:" + "x" * 256])
def test_no_socket_of_systemd(text: str) -> None:
    with pytest.raises(ConfigError, match="write systemd:NAME"):
        parse_endpoint(text)


def test_other_texts_are_addresses_to_bind() -> None:
    assert parse_endpoint("[::1]:843") == Address("::1", 843)
    with pytest.raises(ConfigError, match="write systemd:NAME"):
        Inherited.parse("127.0.0.1:843")


# ----------------------------------------------------------------------------------------------------------- good files


def test_a_whole_file(tmp_path: Path) -> None:
    text = """
        [server]
        workers = "auto"
        admin = "127.0.0.1:9844"
        user = "nobody"
        group = "nogroup"
        chroot = "/var/empty"
        watch = 2
        reload_endpoint = true
        log_format = "json"
        access_log = 0.5
        backlog = 100
        shutdown_timeout = 2
        request_timeout = 1.5
        max_conversations = 7
        [policies.games]
        file = "games.xml"
        [policies.chat]
        grants = [{domain = "*.example.com", ports = "1935,8000-8100"}, {domain = "a.example", ports = 80}]
        [[listeners]]
        name = "master"
        address = "[::]:843"
        policy = "games"
        [[listeners]]
        address = "127.0.0.1:0"
        policy = "chat"
    """
    assert read(tmp_path, text) == Config(
        Server(
            workers=0,
            admin=Address("127.0.0.1", 9844),
            user="nobody",
            group="nogroup",
            chroot=Path("/var/empty"),
            watch=2.0,
            reload_endpoint=True,
            log_format="json",
            access_log=0.5,
            backlog=100,
            shutdown_timeout=2.0,
            limits=Limits(request_timeout=1.5, max_conversations=7),
        ),
        (
            PolicySource("games", file=tmp_path / "games.xml"),
            PolicySource("chat", grants=("*.example.com:1935,8000-8100", "a.example:80")),
        ),
        (Listener("master", Address("::", 843), "games"), Listener(None, Address("127.0.0.1", 0), "chat")),
    )


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Config(Server(), (), ())


def test_the_only_policy_needs_no_naming(tmp_path: Path) -> None:
    assert read(tmp_path, POLICY + LISTENER).listeners[0].policy == "p"


def test_an_absolute_file_stays_where_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, '[policies.p]\nfile = "/srv/p.xml"').policy("p").file == Path("/srv/p.xml")


def test_a_folder_is_relative_to_the_file_too(tmp_path: Path) -> None:
    assert read(tmp_path, '[policies.p]\nfolder = "d"').policies == (PolicySource("p", folder=tmp_path / "d"),)


@pytest.mark.parametrize(("text", "dialect"), [("", "flash"), ("flash", "flash"), ("silverlight", "silverlight")])
def test_dialects(tmp_path: Path, text: str, dialect: str) -> None:
    [listener] = read(tmp_path, POLICY + LISTENER + (f'dialect = "{text}"\n' if text else "")).listeners
    assert (listener.dialect, listener.terminated) == (dialect, dialect == "flash")


def test_a_listeners_own_limits(tmp_path: Path) -> None:
    own = LISTENER + "request_timeout = 0.5\nlinger_bytes = 1\n"
    text = "[server]\nrequest_timeout = 9\nreply_timeout = 8\n" + POLICY + own + LISTENER.replace(":1", ":2")
    config_ = read(tmp_path, text)
    first, second = config_.listeners
    assert config_.limits(first) == Limits(request_timeout=0.5, reply_timeout=8.0, linger_bytes=1)
    assert config_.limits(second) is config_.server.limits
    assert config_.server.limits == Limits(request_timeout=9.0, reply_timeout=8.0)


def test_sockets_of_systemd(tmp_path: Path) -> None:
    text = "[server]\nadmin = 'systemd:metrics'\n" + POLICY + "[[listeners]]\naddress = 'systemd:policy'"
    config_ = config.check(read(tmp_path, text))
    assert config_.server.admin == Inherited("metrics")
    assert config_.listeners[0].address == Inherited("policy")


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.1", 0.1), ("3600", 3600.0), (".5", 0.5), ("2.", 2.0)])
def test_watch_as_text(text: str, value: float) -> None:
    assert kind_of(Server, "watch").read_text("watch", text) == value


@pytest.mark.parametrize("text", ["", "-1", "0.05", "3601", "nan", "inf", "1e2", "1_0", "٣", " 1", "1\n", "."])
def test_no_watch_as_text(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^watch = .*: write 0 \(off\) or a number from 0.1 to 3600$"):
        kind_of(Server, "watch").read_text("watch", text)


def test_admin_off(tmp_path: Path) -> None:
    assert read(tmp_path, '[server]\nadmin = "off"').server.admin is None


def test_workers_auto_is_one_for_each_cpu() -> None:
    assert Server().worker_count == len(os.sched_getaffinity(0))
    assert Server(workers=3).worker_count == 3


@pytest.mark.parametrize(("given", "read"), [("auto", 0), ("1", 1), ("256", 256), (12, 12)])
def test_workers(given: str | int, read: int) -> None:
    assert kind_of(Server, "workers").read_text("workers", str(given)) == read


@pytest.mark.parametrize("text", ["", "0", "257", "-1", "1.5", "AUTO", "two", "²", "٣", 0, 257, -1])
def test_no_number_of_workers(text: str | int) -> None:
    with pytest.raises(ConfigError, match=r'^workers = .*: write "auto" or a number from 1 to 256$'):
        kind_of(Server, "workers").read("workers", text)


@pytest.mark.parametrize("owner", [Server, Limits])
def test_every_setting_has_a_reason_and_a_default_within_its_bounds(owner: type) -> None:
    for field in dataclasses.fields(owner):
        if field.name == "limits":
            continue
        assert field.metadata["why"]
        if field.default is not None:
            kind = field.metadata["kind"]
            assert kind.read(field.name, tomllib.loads(f"x = {kind.show(field.default)}")["x"]) == field.default


# ------------------------------------------------------------------------------------------------------------ bad files

# Text of the file -> what the line must hold: the place, and what to do.
BAD = {
    "nonsense": ("not TOML: ", "Expected '='"),
    "a = 1\na = 2\n": ("not TOML: ", "line 2"),
    b"# \xff": ("not TOML: ", "utf-8"),
    "x = " + "[" * 5000: ("not TOML: ",),
    "[server]\nbacklog = " + "1" * 5000: ("digits",),
    "[server]\nbacklog = 0x" + "f" * 5000: ("flashpol.toml: ",),
    "serve = 1": ("top level", "unknown key 'serve'", "one of server, policies, listeners"),
    "server = 1": ("top level", "server = 1", "write [server]"),
    "policies = []": ("top level", "policies = []", "write [policies.NAME]"),
    "listeners = {}": ("top level", "listeners = {}", "write [[listeners]]"),
    "[listeners]\naddress = '127.0.0.1:1'": ("top level", "listeners = ", "write [[listeners]]"),
    "listeners = [1]": ("[[listeners]] 1", "must be a table"),
    "[policies]\np = 1": ("[policies.p]", "must be a table"),
    "[server]\nworker = 1": ("[server]", "unknown key 'worker'", "one of workers, admin, reload_endpoint, user"),
    "[server]\nlimits = {}": ("[server]", "unknown key 'limits'"),
    "[server]\nworkers = 0": ("workers = 0", "a number from 1 to 256"),
    "[server]\nworkers = true": ("[server]", "workers = True", 'write "auto" or a number from 1 to 256'),
    "[server]\nworkers = 1.0": ("[server]", "workers = 1.0", 'write "auto" or a number from 1 to 256'),
    "[server]\nworkers = 'many'": ("workers = 'many'", "a number from 1 to 256"),
    "[server]\nadmin = 'on'": ("'on'", "write IP:PORT"),
    "[server]\nadmin = false": ("[server]", "admin = False", '"off"'),
    "[server]\nuser = 0": ("[server]", "user = 0", "write a user's name"),
    "[server]\nbacklog = 0": ("[server]", "backlog = 0", "write a whole number from 1 to 65535"),
    "[server]\nbacklog = 1.5": ("[server]", "backlog = 1.5", "write a whole number from"),
    "[server]\nbacklog = '5'": ("[server]", "backlog = '5'", "write a whole number from"),
    "[server]\nrequest_timeout = 0": ("[server]", "request_timeout = 0", "write a number from 0.05 to 3600"),
    "[server]\nrequest_timeout = nan": ("[server]", "request_timeout = nan", "write a number from"),
    "[server]\nrequest_timeout = inf": ("[server]", "request_timeout = inf", "write a number from"),
    "[server]\nrequest_timeout = true": ("[server]", "request_timeout = True", "write a number from"),
    "[server]\nrequest_timeout = 07:30:00": ("[server]", "request_timeout = ", "write a number from"),
    "[server]\ngroup = 0": ("[server]", "group = 0", "write a group's name"),
    "[server]\nchroot = 'jail'": ("[server]", "chroot = 'jail'", "absolute path"),
    '[server]\nchroot = "/a\\u0000"': ("[server]", "absolute path"),
    "[server]\nwatch = 0.01": ("[server]", "watch = 0.01", "write 0 (off) or a number from 0.1 to 3600"),
    "[server]\nwatch = true": ("[server]", "watch = True", "write 0 (off)"),
    "[server]\nwatch = nan": ("[server]", "watch = nan", "write 0 (off)"),
    "[server]\nreload_endpoint = 1": ("[server]", "reload_endpoint = 1", "write true or false"),
    "[server]\nlog_format = 'xml'": ("[server]", "log_format = 'xml'", 'write "text" or "json"'),
    "[server]\naccess_log = 2": ("[server]", "access_log = 2", "write a number from 0 to 1"),
    "[server]\naccess_log = true": ("[server]", "access_log = True", "write a number from 0 to 1"),
    POLICY + LISTENER + "request_timeout = 0": ("[[listeners]] 1", "request_timeout = 0", "from 0.05 to 3600"),
    POLICY + "[[listeners]]\naddress = 'systemd:'": ("[[listeners]] 1", "'systemd:'", "write systemd:NAME"),
    "[policies.p]": ("[policies.p]", "set file, folder or grants"),
    "[policies.p]\nfile = 'p'\ngrants = []": ("[policies.p]", "one of the three"),
    "[policies.p]\nfile = 'p'\nfolder = 'p'": ("[policies.p]", "one of the three"),
    "[policies.p]\nfile = 1": ("[policies.p]", "file = 1", "write a file's name"),
    '[policies.p]\nfile = "a\\u0000b"': ("[policies.p]", "file = 'a\\x00b'", "write a file's name"),
    '[policies."a\\nb"]': ("[policies.", "a\\nb", "set file, folder or grants"),
    "[policies.p]\nfolder = 1": ("[policies.p]", "folder = 1", "write a folder's name"),
    "[policies.p]\nfiles = 'p'": ("[policies.p]", "unknown key 'files'", "file, folder, grants"),
    f"{POLICY}{LISTENER}dialect = 'Flash'": ("dialect = 'Flash'", 'write "flash" or "silverlight"'),
    f"{POLICY}{LISTENER}dialect = 1": ("[[listeners]] 1", "dialect = 1", 'write "flash" or "silverlight"'),
    "[policies.p]\ngrants = 'a:1'": ("[policies.p]", "grants = 'a:1'", "write [{domain = "),
    "[policies.p]\ngrants = ['a:1']": ("[policies.p], grant 1", "must be a table"),
    "[policies.p]\ngrants = [{}]": ("[policies.p], grant 1", "domain is missing", "write a domain"),
    "[policies.p]\ngrants = [{domain = 'a', ports = 1}, {domain = 'b'}]": (
        "grant 2",
        "ports is missing",
        "write ports",
    ),
    "[policies.p]\ngrants = [{domain = 'a', ports = true}]": ("grant 1", "ports = True", "write ports"),
    "[policies.p]\ngrants = [{domain = 'a', ports = 1, secure = 1}]": (
        "grant 1",
        "unknown key 'secure'",
        "domain, ports",
    ),
    POLICY + "[[listeners]]": ("[[listeners]] 1", "address is missing", 'write "IP:PORT" or "systemd:NAME"'),
    POLICY + "[[listeners]]\naddress = 843": ("[[listeners]] 1", "address = 843", 'write "IP:PORT" or "systemd:NAME"'),
    POLICY + "[[listeners]]\naddress = 'all'": ("'all'", "write IP:PORT"),
    POLICY + LISTENER + "name = 1": ("[[listeners]] 1", "name = 1", "write a name"),
    POLICY + LISTENER + "policy = 'q'": ("[[listeners]] 1", "policy = 'q'", "name one of p"),
    POLICY + LISTENER + "polcy = 'p'": ("[[listeners]] 1", "unknown key 'polcy'", "name, address, policy"),
    POLICY + "[policies.q]\nfile = 'q'\n" + LISTENER: ("[[listeners]] 1", "policy", "name one of p, q"),
    LISTENER: ("[[listeners]] 1", "policy", "none is defined"),
}


@pytest.mark.parametrize(("text", "words"), BAD.items(), ids=lambda value: repr(value)[:50])
def test_a_mistake_is_told_in_one_line(tmp_path: Path, text: str | bytes, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'flashpol.toml'}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("name", "why"), [("none.toml", "No such file"), (".", "Is a directory"), ("a/b", "No such file")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        config.load(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be read: ")


# ----------------------------------------------------------------------------------------------------------- the whole


def listeners(*pairs: tuple[str | None, str]) -> Config:
    return Config(Server(), (), tuple(Listener(name, parse_endpoint(text), "p") for name, text in pairs))


@pytest.mark.parametrize(
    "config_",
    [
        listeners(("a", "127.0.0.1:1"), ("b", "127.0.0.1:2")),
        listeners(("a", "127.0.0.1:1"), ("b", "[::1]:1")),
        listeners(("a", "systemd:x"), ("b", "systemd:y"), ("c", "[::]:1")),
        listeners(("a", "[::]:1"), ("b", "0.0.0.0:2")),
        listeners(("a", "[::]:0"), ("b", "0.0.0.0:0")),
        listeners(("a", "127.0.0.1:0"), ("b", "127.0.0.1:0")),
        listeners((None, "127.0.0.1:0"), (None, "127.0.0.1:0")),  # --listen twice: the kernel gives each its own port
    ],
)
def test_listeners_that_differ(config_: Config) -> None:
    assert config.check(config_) is config_


@pytest.mark.parametrize(
    ("config_", "message"),
    [
        (
            listeners(("a", "[::]:843"), ("b", "0.0.0.0:843")),
            "two listeners are on port 843: [::]:843 serves 0.0.0.0:843 too: leave one out",
        ),
        (
            listeners(("a", "127.0.0.1:843"), ("b", "0.0.0.0:843")),
            "two listeners are on port 843: 0.0.0.0:843 serves 127.0.0.1:843 too: leave one out",
        ),
        (
            listeners((None, "127.0.0.1:9843")),
            "a listener and the admin endpoint are on 127.0.0.1:9843: give each its own",
        ),
        (listeners(*((None, f"127.0.0.1:{n}") for n in range(1, 1026))), "1025 listeners: 1024 at most in one server"),
        (listeners(), "no listener: add --listen IP:PORT or [[listeners]]"),
        (listeners((None, "systemd:x"), (None, "systemd:x")), "two listeners are on systemd:x: give each its own"),
        (
            Config(Server(admin=Inherited("x")), (), listeners((None, "systemd:x")).listeners),
            "a listener and the admin endpoint are on systemd:x: give each its own",
        ),
        (listeners(("a", "127.0.0.1:1"), ("a", "[::1]:1")), "two listeners are named a: give each its own"),
        (listeners(("a", "127.0.0.1:0"), ("a", "[::1]:0")), "two listeners are named a: give each its own"),
        (listeners(("a", "127.0.0.1:1"), ("b", "127.0.0.1:1")), "two listeners are on 127.0.0.1:1: give each its own"),
        (
            listeners((None, "127.0.0.1:1"), (None, "127.0.0.1:1")),
            "two listeners are on 127.0.0.1:1: give each its own",
        ),
    ],
)
def test_listeners_that_collide(config_: Config, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.check(config_)
    assert str(caught.value) == message


# ----------------------------------------------------------------------------------------------------- any input at all

KEYS = st.sampled_from([
    "server", "policies", "listeners", "workers", "admin", "user", "backlog", "request_timeout", "linger_bytes", "file",
    "grants", "domain", "ports", "name", "address", "policy", "x",
    "watch", "chroot", "reload_endpoint",
])  # fmt: skip
SCALARS = (
    st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.datetimes() | st.dates() | st.times()
    | st.sampled_from(["auto", "off", "127.0.0.1:1", "[::]:843", "p"])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4)
)


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS | st.text(max_size=3), VALUES, max_size=5))
def test_any_table_is_a_configuration_or_one_line(tmp_path_factory: pytest.TempPathFactory, table: dict) -> None:
    lines = [f"{toml(key)} = {toml(value)}" for key, value in table.items()]
    load_or_one_line(tmp_path_factory, "\n".join(lines).encode())


@settings(max_examples=100, deadline=None)
@given(st.binary() | st.text("[]{}=\"\\\n0123456789xabeserv.#_-+'", max_size=60).map(str.encode))
def test_any_bytes_are_a_configuration_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    load_or_one_line(tmp_path_factory, data)


def load_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(data)
    try:
        result: Config | str = config.load(path)
    except ConfigError as error:
        result = str(error)
    assert isinstance(result, Config) or result.isprintable()
